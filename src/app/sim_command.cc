// varve sim
#include <CLI/CLI.hpp>
#include <cstdio>

#include "app/commands.h"
#include "sim/sim.h"

namespace varve::app {

int sim_command(const arguments& args) {
    sim::options how;
    CLI::App app{
        "Run a whole server and a host of it in a simulation that a seed decides: networks that lose connections, "
        "disks\n"
        "that lose what was not flushed, power cuts. Checks every byte read; stops at the first seed that fails.\n\n"
        "  varve sim --seeds 1000           seeds 1 to 1000\n"
        "  varve sim --seed 417 --twice     one, and that it repeats",
        "varve sim"};
    app.add_option("--seed", how.seed, "the first seed")->capture_default_str();
    app.add_option("--seeds", how.seeds, "how many")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_flag("--twice", how.twice, "run each twice: both must do the same");
    try {
        app.parse(std::vector<std::string>(args.rbegin(), args.rend() - 1));
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? exit_ok : exit_usage;
    }
    return sim::run(how, stdout) == 0 ? exit_ok : exit_failed;
}

}  // namespace varve::app
