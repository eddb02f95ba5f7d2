#include "util/uuid.h"

namespace varve {

namespace {
constexpr bool hyphen_before(unsigned byte) { return byte == 4 || byte == 6 || byte == 8 || byte == 10; }
constexpr int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}
}  // namespace

std::string uuid::to_string() const {
    constexpr char digits[] = "0123456789abcdef";
    std::string text;
    text.reserve(36);
    for (unsigned i = 0; i < bytes.size(); ++i) {
        if (hyphen_before(i)) text += '-';
        text += digits[bytes[i] >> 4];
        text += digits[bytes[i] & 15];
    }
    return text;
}

std::optional<uuid> uuid::parse(std::string_view text) noexcept {
    if (text.size() != 36) return std::nullopt;
    uuid parsed;
    std::size_t at = 0;
    for (unsigned i = 0; i < parsed.bytes.size(); ++i) {
        if (hyphen_before(i) && text[at++] != '-') return std::nullopt;
        int high = digit_of(text[at]), low = digit_of(text[at + 1]);
        if (high < 0 || low < 0) return std::nullopt;
        parsed.bytes[i] = static_cast<uint8_t>(high << 4 | low);
        at += 2;
    }
    return parsed;
}

uuid uuid::from_random(uint64_t high, uint64_t low) noexcept {
    uuid made;
    for (unsigned i = 0; i < 8; ++i) {
        made.bytes[i] = static_cast<uint8_t>(high >> (56 - 8 * i));
        made.bytes[8 + i] = static_cast<uint8_t>(low >> (56 - 8 * i));
    }
    made.bytes[6] = static_cast<uint8_t>((made.bytes[6] & 0x0f) | 0x40);
    made.bytes[8] = static_cast<uint8_t>((made.bytes[8] & 0x3f) | 0x80);
    return made;
}

}  // namespace varve
