#include "util/escape.h"

namespace varve {

namespace {

constexpr unsigned char byte_at(std::string_view text, std::size_t i) noexcept {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
}
// How many bytes the control character takes that begins here; 0: none does.
std::size_t control_at(std::string_view text, std::size_t i) noexcept {
    const unsigned char c = byte_at(text, i);
    if (c < 0x20 || c == 0x7f) return 1;
    const unsigned char next = byte_at(text, i + 1);
    return c == 0xc2 && next >= 0x80 && next < 0xa0 ? 2 : 0;
}

}  // namespace

bool has_controls(std::string_view text) noexcept {
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (control_at(text, i) != 0) return true;
    }
    return false;
}

std::string escaped(std::string_view text) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
        std::size_t bytes = control_at(text, i);
        if (bytes == 0) out += text[i++];
        for (; bytes > 0; --bytes, ++i) {
            const unsigned char c = byte_at(text, i);
            out += "\\x";
            out += digits[c >> 4];
            out += digits[c & 15];
        }
    }
    return out;
}

}  // namespace varve
