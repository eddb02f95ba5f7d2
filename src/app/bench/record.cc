#include "app/bench/record.h"

#include <fmt/format.h>

#include <charconv>

namespace varve::app::bench {

namespace {

// The next number of a line; false when there is none.
bool take_number(std::string_view& line, uint64_t& out) {
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), out);
    if (error != std::errc()) return false;
    line.remove_prefix(static_cast<std::size_t>(end - line.data()));
    return true;
}

std::string_view take_line(std::string_view& text) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    return line;
}

}  // namespace

result<record> record::from_text(std::string_view text, uint64_t units, uint32_t io_size) {
    std::string_view line = take_line(text);
    uint64_t its_units = 0, its_size = 0;
    if (!take_number(line, its_units) || !take_number(line, its_size)) {
        return fail(errc::invalid, "this is no record of writes");
    }
    if (its_units != units || its_size != io_size) {
        return fail(errc::invalid, fmt::format("the record is of {} units of {} bytes, the disk has {} of {}",
                                               its_units, its_size, units, io_size));
    }
    record out(units);
    while (!text.empty()) {
        line = take_line(text);
        uint64_t unit = 0, issued = 0, safe = 0;
        if (!take_number(line, unit) || !take_number(line, issued) || !take_number(line, safe) || unit >= units ||
            safe > issued) {
            return fail(errc::invalid, "the record of writes is damaged");
        }
        out.issued[unit] = issued;
        out.safe[unit] = safe;
    }
    return out;
}

std::string record::to_text(uint32_t io_size) const {
    std::string out = fmt::format("{} {}\n", issued.size(), io_size);
    for (std::size_t i = 0; i < issued.size(); ++i) {
        if (issued[i] != 0) out += fmt::format("{} {} {}\n", i, issued[i], safe[i]);
    }
    return out;
}

}  // namespace varve::app::bench
