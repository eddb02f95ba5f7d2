#include "util/base64.h"

#include <cstdint>

namespace varve {

std::string base64(std::span<const std::byte> bytes) {
    constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::size_t here = bytes.size() - i < 3 ? bytes.size() - i : 3;
        uint32_t group = 0;
        for (std::size_t j = 0; j < 3; ++j) group = group << 8 | (j < here ? static_cast<uint32_t>(bytes[i + j]) : 0);
        for (std::size_t j = 0; j < 4; ++j) text += j <= here ? digits[group >> (18 - 6 * j) & 63] : '=';
    }
    return text;
}

}  // namespace varve
