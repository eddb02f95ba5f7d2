#include "blob/check/journal.h"

#include <fmt/format.h>

#include <cstring>

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

uint32_t crc_of(std::span<const std::byte> before, std::span<const std::byte> after) noexcept {
    return accel::crc32c(after, accel::crc32c(before));
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
                           .reason_length = static_cast<uint32_t>(c.why.size())};
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
        if (w.reason_length > text.size() || w.length > (text.size() - w.reason_length) / 2)
            return format::damaged("the journal ends in the middle of a change");
        change c{.offset = w.offset,
                 .before = bytes_of(text.substr(w.reason_length, w.length)),
                 .after = bytes_of(text.substr(w.reason_length + w.length, w.length)),
                 .why = std::string(text.substr(0, w.reason_length))};
        if (crc_of(c.before, c.after) != w.crc) return format::damaged("the journal is damaged");
        text.remove_prefix(w.reason_length + 2 * w.length);
        out.changes.push_back(std::move(c));
    }
    return out;
}

}  // namespace varve::blob::check
