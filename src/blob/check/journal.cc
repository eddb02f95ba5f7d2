#include "blob/check/journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <ranges>

#include "accel/crc32c.h"

namespace varve::blob::check {

namespace {

constexpr std::string_view head = "varve-fsck-journal 1\n";

struct entry_wire {
    le64 offset;
    le64 length;
    le32 crc;
    le32 reason_length;
};
static_assert(sizeof(entry_wire) == 24);
constexpr uint32_t lost_bit = uint32_t{1} << 31;  // of reason_length

uint32_t crc_of(std::span<const std::byte> before, std::span<const std::byte> after) noexcept {
    return accel::crc32c(after, accel::crc32c(before));
}
constexpr std::size_t sector = 512;  // is written whole or not at all

// All changes of one place, which may be of different lengths: a page of the store's size, and what of it means
// anything.
class place {
  public:
    void add(const change& c) { _changes.push_back(&c); }
    bool may_be_lost() const noexcept {
        return std::ranges::any_of(_changes, [](const change* c) { return c->lost; });
    }
    std::size_t size() const noexcept {
        return std::ranges::max(_changes, {}, [](const change* c) { return c->after.size(); })->after.size();
    }
    // What was there, as far as it is known, and after each change.
    std::vector<std::vector<std::byte>> states() const {
        std::vector<std::byte> now(size());
        for (const change* c : _changes | std::views::reverse)
            std::ranges::copy(c->lost ? c->after : c->before, now.begin());
        std::vector<std::vector<std::byte>> out{now};
        for (const change* c : _changes) {
            std::ranges::copy(c->after, now.begin());
            out.push_back(now);
        }
        return out;
    }
    // One after another, as they were made, so that a tear leaves no more than a tear of the repair did; those of the
    // same length at once.
    void take_back(std::vector<std::byte> now, repair_plan& out) const {
        const auto all = states();
        for (std::size_t i = _changes.size(); i-- > 0 && now != all.front();) {
            const std::size_t length = _changes[i]->after.size();
            if (i > 0 && _changes[i - 1]->after.size() == length) continue;
            const auto before = std::span(now).first(length);
            const auto after = std::span(all[i]).first(length);
            if (std::ranges::equal(before, after)) continue;
            out.changes.push_back({.offset = _changes[i]->offset,
                                   .before = {before.begin(), before.end()},
                                   .after = {after.begin(), after.end()},
                                   .why = _changes[i]->why});
            std::ranges::copy(after, now.begin());
        }
    }

  private:
    std::vector<const change*> _changes;
};

// Each sector of `now` is what it was in one of the states.
bool made_of(std::span<const std::byte> now, const std::vector<std::vector<std::byte>>& states) {
    for (std::size_t at = 0; at < now.size(); at += sector) {
        const std::size_t size = std::min(sector, now.size() - at);
        if (std::ranges::none_of(states, [&](const auto& s) {
                return std::ranges::equal(now.subspan(at, size), std::span(s).subspan(at, size));
            })) {
            return false;
        }
    }
    return true;
}
std::vector<std::byte> bytes_of(std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
}

}  // namespace

std::string encode_journal(const repair_plan& plan) {
    std::string out(head);
    auto add = [&out](const void* bytes, std::size_t size) { out.append(static_cast<const char*>(bytes), size); };
    for (const change& c : plan.changes) {
        const entry_wire w{.offset = c.offset,
                           .length = c.before.size(),
                           .crc = crc_of(c.before, c.after),
                           .reason_length = static_cast<uint32_t>(c.why.size()) | (c.lost ? lost_bit : 0)};
        add(&w, sizeof w);
        out += c.why;
        add(c.before.data(), c.before.size());
        add(c.after.data(), c.after.size());
    }
    return out;
}

result<repair_plan> decode_journal(std::string_view text) {
    if (!text.starts_with(head)) return format::damaged("not a journal of varve fsck");
    text.remove_prefix(head.size());
    repair_plan out;
    while (!text.empty()) {
        entry_wire w;
        if (text.size() < sizeof w) return format::damaged("the journal ends in the middle of a change");
        std::memcpy(&w, text.data(), sizeof w);
        text.remove_prefix(sizeof w);
        const uint32_t reason = w.reason_length & ~lost_bit;
        if (reason > text.size() || w.length > (text.size() - reason) / 2)
            return format::damaged("the journal ends in the middle of a change");
        change c{.offset = w.offset,
                 .before = bytes_of(text.substr(reason, w.length)),
                 .after = bytes_of(text.substr(reason + w.length, w.length)),
                 .why = std::string(text.substr(0, reason)),
                 .lost = (w.reason_length & lost_bit) != 0};
        if (crc_of(c.before, c.after) != w.crc) return format::damaged("the journal is damaged");
        text.remove_prefix(reason + 2 * w.length);
        out.changes.push_back(std::move(c));
    }
    return out;
}

result<repair_plan> plan_undo(const repair_plan& journal, storage& device) {
    std::map<uint64_t, place> places;
    for (const change& c : journal.changes) places[c.offset].add(c);
    repair_plan out;
    for (const change& c : journal.changes | std::views::reverse) {
        const auto mine = places.extract(c.offset);
        if (mine.empty()) continue;  // it was seen to with a later change
        const place& here = mine.mapped();
        std::vector<std::byte> now(here.size());
        piece p{.offset = c.offset, .bytes = now, .failed = {}};
        device.read(std::span(&p, 1));
        if (!p.failed.empty() && here.may_be_lost()) continue;  // it was not written
        if (!p.failed.empty()) return fail(errc::io, fmt::format("{}: {}", c.why, p.failed));
        if (!made_of(now, here.states()))
            return fail(errc::busy, fmt::format("{}: what is there is neither what was there before nor what the "
                                                "repair wrote: somebody has written since",
                                                c.why));
        here.take_back(std::move(now), out);
    }
    return out;
}

}  // namespace varve::blob::check
