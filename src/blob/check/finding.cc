#include "blob/check/finding.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <iterator>

namespace varve::blob::check {

namespace {

constexpr std::size_t listed_max = 65536;

}  // namespace

std::string_view name_of(problem p) noexcept {
    switch (p) {
        case problem::bad_super:
            return "bad_super";
        case problem::torn_super:
            return "torn_super";
        case problem::lost_super:
            return "lost_super";
        case problem::bad_copy:
            return "bad_copy";
        case problem::lost_copy:
            return "lost_copy";
        case problem::not_unloaded:
            return "not_unloaded";
        case problem::bad_mask:
            return "bad_mask";
        case problem::unmarked:
            return "unmarked";
        case problem::leaked:
            return "leaked";
        case problem::unreadable:
            return "unreadable";
        case problem::bad_page:
            return "bad_page";
        case problem::flipped_bit:
            return "flipped_bit";
        case problem::bad_root:
            return "bad_root";
        case problem::stale_root:
            return "stale_root";
        case problem::bad_blob:
            return "bad_blob";
        case problem::shared_clusters:
            return "shared_clusters";
        case problem::shared_page:
            return "shared_page";
        case problem::missing_parent:
            return "missing_parent";
        case problem::half_made_snapshot:
            return "half_made_snapshot";
        case problem::unfinished_resize:
            return "unfinished_resize";
        case problem::torn_write:
            return "torn_write";
        case problem::lost_double_write:
            return "lost_double_write";
        case problem::bad_volume:
            return "bad_volume";
        case problem::set_aside:
            return "set_aside";
        case problem::owners_unknown:
            return "owners_unknown";
    }
    return "?";
}

std::vector<format::cluster_run> as_runs(std::span<const uint32_t> sorted_numbers) {
    std::vector<format::cluster_run> out;
    for (uint32_t n : sorted_numbers) {
        if (!out.empty() && uint64_t{out.back().first} + out.back().count == n)
            ++out.back().count;
        else
            out.push_back({n, 1});
    }
    return out;
}

std::optional<finding> look_at_aside(const format::blob_record& r) {
    if ((r.flags.invalid & format::invalid_flag::set_aside) == 0 &&
        (r.flags.data_read_only & format::data_ro_flag::set_aside) == 0)
        return std::nullopt;
    const std::string* why = r.internal_xattrs.find(format::xattr_set_aside);
    finding f{.what = problem::set_aside, .how_bad = severity::note, .blobs = {r.id}};
    f.text = fmt::format("blob {:#x} {}: was set aside{}{}", r.id,
                         r.access() == format::blob_access::none ? "(not opened)" : "(read only)",
                         why == nullptr ? "" : ": ", why == nullptr ? "" : *why);
    return f;
}

void number_list::add(uint32_t first, uint32_t count) {
    if (!runs.empty() && left_out == 0 && runs.back().first + runs.back().count == first)
        runs.back().count += count;
    else if (runs.size() < listed_max)
        runs.push_back({first, count});
    else
        left_out += count;
}

number_list only_in(const format::bit_mask& a, const format::bit_mask& b) {
    number_list out;
    for (std::size_t i = 0; i < a.words().size(); ++i) {
        constexpr unsigned bits = 64;
        const uint64_t word = a.words()[i] & ~b.words()[i];
        for (unsigned at = 0, end = 0; word >> end != 0; at = end) {
            at = end + static_cast<unsigned>(std::countr_zero(word >> end));
            end = at + static_cast<unsigned>(std::countr_one(word >> at));
            out.add(static_cast<uint32_t>(i * bits + at), end - at);
            if (end == bits) break;
        }
    }
    return out;
}

void list_pages(finding& f, const number_list& pages) {
    f.not_listed = pages.left_out;
    for (const auto& run : pages.runs) {
        const uint32_t room = std::min<uint32_t>(run.count, static_cast<uint32_t>(listed_max - f.pages.size()));
        for (uint32_t i = 0; i < room; ++i) f.pages.push_back(run.first + i);
        f.not_listed += run.count - room;
    }
}
void list_clusters(finding& f, number_list clusters) {
    f.clusters = std::move(clusters.runs);
    f.not_listed = clusters.left_out;
}

std::string in_words(const number_list& numbers) { return in_words(numbers.runs, numbers.left_out); }
std::string in_words(std::span<const format::cluster_run> runs, uint64_t more) {
    constexpr std::size_t shown = 8;
    std::string out;
    uint64_t left = more;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const auto [first, count] = runs[i];
        if (i >= shown) {
            left += count;
            continue;
        }
        if (i > 0) out += ", ";
        if (count == 1)
            fmt::format_to(std::back_inserter(out), "{}", first);
        else
            fmt::format_to(std::back_inserter(out), "{}-{}", first, uint64_t{first} + count - 1);
    }
    if (left > 0) fmt::format_to(std::back_inserter(out), " and {} more", left);
    return out;
}

std::string in_words(std::span<const uint32_t> sorted_numbers) { return in_words(as_runs(sorted_numbers)); }

}  // namespace varve::blob::check
