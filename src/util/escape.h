// Text that others chose, for a terminal or a log: what would steer a terminal, or begin a line, is written out.
#pragma once

#include <string>
#include <string_view>

namespace varve {

// Has control characters: those of ASCII, or U+0080 to U+009F as UTF-8 has them.
bool has_controls(std::string_view text) noexcept;
// Each byte of such a character becomes \x and two hexadecimal digits; everything else stays.
std::string escaped(std::string_view text);

}  // namespace varve
