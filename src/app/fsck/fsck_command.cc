// varve fsck: finds what is wrong with a blobstore on a file or device, and repairs it. Exit statuses as e2fsck's.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "app/commands.h"
#include "app/fsck/store_file.h"
#include "blob/check/journal.h"
#include "blob/check/report.h"
#include "blob/check/search.h"
#include "json/write.h"
#include "util/escape.h"

namespace varve::app {

namespace {

namespace check = blob::check;

enum fsck_status : int {  // the first are bits, of which some may be set together
    fsck_clean = 0,
    fsck_repaired = 1,
    fsck_errors_left = 4,
    fsck_failed = 8,
    fsck_usage = 16,
};

struct fsck_options {
    std::string device, journal, undo;
    bool repair = false, rewrite_unreadable = false, search = false, dry_run = false, json = false, verbose = false;
    uint32_t cluster_size = 0;
};

int complain(const error& e) {
    fmt::print(stderr, "varve fsck: {}\n", escaped(e.message()));
    return fsck_failed;
}

void print_json(const check::evidence& e, const check::examination& found, const check::repair_plan& plan,
                const check::outcome& end) {
    fmt::print("{}\n", json::write(check::as_json(e, found, plan, end), 2));
}

std::string free_journal_name(const std::string& device) {
    const std::string base = std::filesystem::path(device).filename().string() + ".fsck-journal";
    std::string name = base;
    for (int n = 1; std::filesystem::exists(name); ++n) name = fmt::format("{}.{}", base, n);
    return name;
}

int say_end(const fsck_options& how, const check::examination& left, const check::outcome& end) {
    const uint64_t errors = left.errors();
    if (!how.json) {
        for (const auto& f : left.findings)
            if (end.repaired && f.how_bad == check::severity::error) fmt::print("left: {}\n", escaped(f.text));
        if (end.repaired) fmt::print("repaired; what was there before is in {}\n", end.journal);
        if (errors > 0)
            fmt::print("{} error{} {}\n", errors, errors == 1 ? "" : "s", end.repaired ? "left" : "found");
        else if (!end.repaired)
            fmt::print("clean\n");
    }
    return (end.repaired ? fsck_repaired : fsck_clean) | (errors > 0 ? fsck_errors_left : fsck_clean);
}

// Not even a super block can be read.
int no_store(const fsck_options& how, const blob::format::device_shape& shape, const error& why) {
    if (how.json) {
        const check::evidence nothing(shape, blob::format::page_bytes{});
        check::examination found;
        found.findings.push_back({.what = check::problem::bad_super, .text = why.message()});
        print_json(nothing, found, {}, {});
    }
    return complain(why);
}

// Writes the plan and looks again. The end is told in `end`, also where it is none.
result<check::examination> repair(const fsck_options& how, store_file& file, const check::repair_plan& plan,
                                  check::outcome& end) {
    const std::string journal = how.journal.empty() ? free_journal_name(how.device) : how.journal;
    VARVE_TRY(write_new_file(journal, check::encode_journal(plan)));
    end.journal = journal;
    if (auto done = file.apply(plan, &end.changes_written); !done) {
        return fail(error(
            done.error().code(),
            fmt::format("{}; the repair is half done: {} of its changes are written. Once the device can be written "
                        "again, repair again, or take it back with --undo {}",
                        done.error().message(), end.changes_written, journal)));
    }
    end.repaired = true;
    auto again = check::inspect(file);
    if (!again) return std::unexpected(std::move(again).error());
    return check::examine(*again);
}

int run_check(const fsck_options& how) {
    const bool write = how.repair && !how.dry_run;
    auto file = store_file::open(how.device, write);
    if (!file) return complain(file.error());
    if ((*file)->in_use()) {
        fmt::print(stderr, "varve fsck: {} is in use: what is found may only be under way\n", how.device);
    }
    auto read = check::inspect(**file, {.search = how.search, .cluster_size = how.cluster_size});
    if (!read) return no_store(how, (*file)->shape(), read.error());
    auto found = check::examine(*read, {.give_up_unreadable = how.rewrite_unreadable});
    const auto plan = how.repair || how.dry_run ? check::plan_repair(*read, found) : check::repair_plan{};
    if (!how.json) fmt::print("{}", check::in_words(*read, found, plan, how.verbose));
    check::outcome end;
    std::optional<error> failed;
    std::optional<check::examination> left;
    if (write && !plan.empty()) {
        auto done = repair(how, **file, plan, end);
        if (done)
            end.after = &left.emplace(std::move(*done));
        else
            failed = std::move(done).error();
    }
    if (how.json) print_json(*read, found, plan, end);
    if (failed) return complain(*failed);
    if (read->store() == nullptr) {  // there is nothing to check
        if (!how.search && !check::has_trace(**file, read->super_page()))
            fmt::print(stderr, "nothing in the first pages is a store's; --search looks for more\n");
        return fsck_failed;
    }
    return say_end(how, left ? *left : found, end);
}

void say_undone(const fsck_options& how, const check::repair_plan& journal, const check::repair_plan& undo) {
    if (how.json) {
        json::array back, lost;
        for (const auto& c : undo.changes) back.emplace_back(c.why);
        for (const auto& c : journal.changes)
            if (c.lost) lost.emplace_back(c.why);
        const json::object all{
            {"dry_run", how.dry_run}, {"taken_back", std::move(back)}, {"not_taken_back", std::move(lost)}};
        fmt::print("{}\n", json::write(json::value(all), 2));
        return;
    }
    for (const auto& c : undo.changes)
        if (how.dry_run) fmt::print("change: {}\n", escaped(c.why));
    for (const auto& c : journal.changes)
        if (c.lost && !how.dry_run) fmt::print("not taken back: {}\n", escaped(c.why));
    fmt::print("{} changes {}taken back\n", undo.changes.size(), how.dry_run ? "would be " : "");
}

int run_undo(const fsck_options& how) {
    auto text = read_whole_file(how.undo);
    if (!text) return complain(text.error());
    auto journal = check::decode_journal(*text);
    if (!journal) return complain(std::move(journal).error().in(how.undo));
    auto file = store_file::open(how.device, !how.dry_run);
    if (!file) return complain(file.error());
    auto plan = check::plan_undo(*journal, **file);
    if (!plan) return complain(std::move(plan).error().in(how.device));
    if (!how.dry_run) {
        std::size_t written = 0;
        if (auto done = (*file)->apply(*plan, &written); !done) {
            complain(done.error());
            fmt::print(stderr, "{} of {} changes are taken back; --undo can be repeated\n", written,
                       plan->changes.size());
            return fsck_failed;
        }
    }
    say_undone(how, *journal, *plan);
    return how.dry_run || plan->changes.empty() ? fsck_clean : fsck_repaired;
}

}  // namespace

int fsck_command(const arguments& args) {
    fsck_options how;
    CLI::App app{
        "Check a blobstore (logical volume store) on a file or block device that is not in use.\n\n"
        "Exit status, a sum: 0 no errors; 1 repaired; 4 errors left; 8 there is no store, or it could not be read or "
        "written; 16 wrong usage.\n"
        "A repair never writes to data clusters and keeps every byte it replaces in a journal.",
        "varve fsck"};
    app.add_option("DEVICE", how.device, "the file or block device")->required();
    app.add_flag("--repair", how.repair, "change what can be repaired; what is ambiguous is set aside");
    app.add_flag("--rewrite-unreadable", how.rewrite_unreadable,
                 "with --repair: zero metadata pages that cannot be read and that no blob names. A blob that began in "
                 "one is lost; --undo cannot bring them back")
        ->needs("--repair");
    app.add_flag(
        "--search", how.search,
        "when the super block is damaged, look for what it said even where nothing in the first pages is a store's: "
        "with --repair, what else is on the device now is lost (the journal has it)");
    app.add_option("--cluster-size", how.cluster_size,
                   "bytes, for a store whose super block is damaged, where nothing else tells them");
    app.add_flag("--dry-run", how.dry_run, "say what --repair or --undo would change, and change nothing");
    app.add_option("--journal", how.journal, "where to keep what is replaced (default: ./NAME.fsck-journal)");
    app.add_option("--undo", how.undo, "take back the repair of which this is the journal")->excludes("--repair");
    app.add_flag("--json", how.json, "the findings as JSON");
    app.add_flag("-v,--verbose", how.verbose, "notes, too");
    try {
        app.parse(std::vector<std::string>(args.rbegin(), args.rend() - 1));
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? fsck_clean : fsck_usage;
    }
    return how.undo.empty() ? run_check(how) : run_undo(how);
}

int blob_command(const arguments& args) {
    std::string device;
    bool as_json = false, search = false;
    CLI::App app{"Look into blobstores", "varve blob"};
    auto* dump = app.add_subcommand("dump", "print every blob of a store: flags, clusters, pages, xattrs");
    dump->add_option("DEVICE", device, "the file or block device")->required();
    dump->add_flag("--json", as_json, "as JSON");
    dump->add_flag("--search", search, "when the super block is damaged, look for what it said");
    app.require_subcommand(1);
    try {
        app.parse(std::vector<std::string>(args.rbegin(), args.rend() - 1));
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? exit_ok : exit_usage;
    }
    auto file = store_file::open(device, false);
    if (!file) {
        fmt::print(stderr, "varve blob: {}\n", file.error().message());
        return exit_failed;
    }
    auto read = check::inspect(**file, {.search = search});
    if (!read || read->store() == nullptr) {
        fmt::print(stderr, "varve blob: {}: {}\n", device,
                   escaped(read ? read->why_no_store() : read.error().message()));
        return exit_failed;
    }
    const auto found = check::examine(*read);
    if (as_json)
        fmt::print("{}\n", json::write(check::dump_as_json(*read, found), 2));
    else
        fmt::print("{}", check::dump_in_words(*read, found));
    return exit_ok;
}

}  // namespace varve::app
