#include "thread/cpu_set.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>

#include "util/assert.h"

namespace varve::thread {

namespace {

bool blank(char c) { return c == ' ' || c == '\t'; }

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && blank(text.back())) text.remove_suffix(1);
    return text;
}

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// What a client sent may hold anything; only a little of it, made printable, goes into a message.
std::string quoted(std::string_view text) {
    std::string out = "'";
    for (char c : text.substr(0, 64)) out += c >= ' ' && c <= '~' ? c : '?';
    return out + "'";
}

result<unsigned> processor(std::string_view text) {
    text = trimmed(text);
    unsigned number = 0;
    auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (wrong == std::errc::result_out_of_range || (wrong == std::errc() && number >= cpu_set::limit)) {
        return fail(errc::invalid, fmt::format("processor {} is above {}", quoted(text), cpu_set::limit - 1));
    }
    if (wrong != std::errc() || end != text.data() + text.size()) {
        return fail(errc::invalid, fmt::format("{} is not a processor's number", quoted(text)));
    }
    return number;
}

}  // namespace

result<cpu_set> cpu_set::parse(std::string_view text) {
    std::string_view body = trimmed(text);
    if (body.empty()) return fail(errc::invalid, "an empty text is no set of processors");
    if (body.front() == '[') {
        if (body.back() != ']') return fail(errc::invalid, fmt::format("{} lacks the closing ']'", quoted(body)));
        return parse_list(body.substr(1, body.size() - 2));
    }
    return body.find('-') == std::string_view::npos ? parse_mask(body) : parse_list(body);
}

result<cpu_set> cpu_set::parse_list(std::string_view text) {
    cpu_set set;
    for (std::size_t at = 0; at <= text.size();) {
        std::size_t comma = std::min(text.find(',', at), text.size());
        std::string_view item = text.substr(at, comma - at);
        std::size_t dash = item.find('-');
        auto first = processor(item.substr(0, dash));
        VARVE_TRY(first);
        auto last = dash == std::string_view::npos ? first : processor(item.substr(dash + 1));
        VARVE_TRY(last);
        if (*first > *last) return fail(errc::invalid, fmt::format("the range {} runs backwards", quoted(item)));
        for (unsigned cpu = *first; cpu <= *last; ++cpu) set.add(cpu);
        at = comma + 1;
    }
    return set;
}

result<cpu_set> cpu_set::parse_mask(std::string_view text) {
    if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
    cpu_set set;
    uint64_t first = 0;  // the processor of the digit's lowest bit
    bool digits = false;
    for (std::size_t i = text.size(); i-- > 0;) {
        if (text[i] == ',') continue;
        int value = hex_value(text[i]);
        if (value < 0) return fail(errc::invalid, fmt::format("{} is no mask of processors", quoted(text)));
        digits = true;
        for (unsigned bit = 0; bit < 4; ++bit) {
            if ((value >> bit & 1) == 0) continue;
            if (first + bit >= limit) {
                return fail(errc::invalid, fmt::format("the mask names a processor above {}", limit - 1));
            }
            set.add(static_cast<unsigned>(first) + bit);
        }
        first += 4;
    }
    if (!digits) return fail(errc::invalid, "a mask of processors needs hexadecimal digits");
    return set;
}

std::string cpu_set::to_mask() const {
    if (_words.empty()) return "0";
    std::string mask = fmt::format("{:x}", _words.back());
    for (std::size_t i = _words.size() - 1; i-- > 0;) mask += fmt::format("{:016x}", _words[i]);
    return mask;
}

bool cpu_set::contains(unsigned cpu) const noexcept {
    return cpu / 64 < _words.size() && (_words[cpu / 64] >> (cpu % 64) & 1) != 0;
}

void cpu_set::add(unsigned cpu) {
    VARVE_ASSERT(cpu < limit);
    if (_words.size() <= cpu / 64) _words.resize(cpu / 64 + 1);
    _words[cpu / 64] |= uint64_t{1} << (cpu % 64);
}

bool cpu_set::empty() const noexcept { return _words.empty(); }

std::vector<unsigned> cpu_set::list() const {
    std::vector<unsigned> cpus;
    for (unsigned word = 0; word < _words.size(); ++word) {
        for (uint64_t bits = _words[word]; bits != 0; bits &= bits - 1) {
            cpus.push_back(word * 64 + static_cast<unsigned>(std::countr_zero(bits)));
        }
    }
    return cpus;
}

}  // namespace varve::thread
