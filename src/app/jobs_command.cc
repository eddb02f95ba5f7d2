// varve jobs: the long operations of a running server, and a hand on them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "app/commands.h"
#include "app/rpc_arguments.h"
#include "app/rpc_client.h"
#include "json/write.h"
#include "util/escape.h"

namespace varve::app {

namespace {

void print_table(const json::array& jobs) {
    fmt::print("{:>5}  {:<14} {:<10} {:>16}  {:>9}  {}\n", "ID", "KIND", "STATE", "DONE", "TIME", "OBJECT");
    for (const json::value& j : jobs) {
        auto number = [&](const char* key) { return j[key].unsigned_integer().value_or(0); };
        auto text = [&](const char* key) { return j[key].string() != nullptr ? *j[key].string() : std::string(); };
        const uint64_t done = number("done"), total = number("total");
        std::string progress =
            total == 0 ? fmt::format("{}", done) : fmt::format("{}/{} {:>3}%", done, total, done * 100 / total);
        std::string line =
            fmt::format("{:>5}  {:<14} {:<10} {:>16}  {:>7.1f} s  {}", number("id"), text("kind"), text("state"),
                        progress, static_cast<double>(number("elapsed_ms")) / 1000, text("object"));
        if (uint64_t limit = number("mb_per_sec"); limit != 0) line += fmt::format(", at most {} MiB/s", limit);
        if (std::string error = text("error"); !error.empty()) line += ": " + error;
        fmt::print("{}\n", escaped(line));
    }
}

int call(const rpc_options& o, const char* method, json::object params) {
    json::object request{{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}};
    if (!params.empty()) request.add("params", std::move(params));
    auto answer = exchange(o.socket, json::write(json::value(std::move(request))), o.timeout_s);
    if (!answer) {
        fmt::print(stderr, "varve jobs: {}\n", answer.error().message());
        return exit_no_answer;
    }
    if (const json::value* e = answer->find("error")) {
        const std::string* message = (*e)["message"].string();
        fmt::print(stderr, "varve jobs: {}\n", escaped(message != nullptr ? *message : json::write(*e)));
        return exit_failed;
    }
    if (const json::array* jobs = (*answer)["result"].items()) print_table(*jobs);
    return exit_ok;
}

}  // namespace

int jobs_command(const arguments& args) {
    CLI::App app(
        "Shows the long operations of a running server (copies, inflating, checks, clearing), and steers them.",
        "varve jobs");
    rpc_options o;
    uint64_t id = 0, limit = 0;
    app.add_option("-s,--socket", o.socket, "Unix socket of the server")->capture_default_str();
    app.add_option("-t,--timeout", o.timeout_s, "seconds to wait for the answer")->capture_default_str();
    app.require_subcommand(0, 1);
    auto add = [&](const char* name, const char* text) {
        CLI::App* sub = app.add_subcommand(name, text);
        sub->add_option("ID", id, "number of the job")->required();
        return sub;
    };
    CLI::App* pause = add("pause", "let a job wait before its next step");
    CLI::App* resume = add("resume", "let a paused job go on");
    CLI::App* cancel = add("cancel", "end a job before its next step");
    CLI::App* slow = add("limit", "limit what a job moves in a second");
    slow->add_option("MIB", limit, "MiB a second; 0: no limit")->required();
    try {
        std::vector<std::string> rest(args.rbegin(), args.rend() - 1);
        app.parse(std::move(rest));
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? exit_ok : exit_usage;
    }
    if (pause->parsed()) return call(o, "job_pause", {{"id", id}});
    if (resume->parsed()) return call(o, "job_resume", {{"id", id}});
    if (cancel->parsed()) return call(o, "job_cancel", {{"id", id}});
    if (slow->parsed()) return call(o, "job_set_rate_limit", {{"id", id}, {"mb_per_sec", limit}});
    return call(o, "job_get_jobs", {});
}

}  // namespace varve::app
