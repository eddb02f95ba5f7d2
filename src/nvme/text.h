// Names of wire values, for messages and reports.
#pragma once

#include <string>
#include <string_view>

#include "nvme/spec.h"

namespace varve::nvme {

// "lba out of range", or "unknown status".
std::string_view text_of(status s) noexcept;
// "lba out of range (0/80h)": with status code type and code, as logs show it.
std::string describe(status s);

std::string_view text_of(admin_opcode o) noexcept;
std::string_view text_of(nvm_opcode o) noexcept;
// By the queue it came in on: the admin queue or another.
std::string_view opcode_text(uint8_t opcode, bool admin) noexcept;

// A text field of fixed size: without trailing spaces, and ended by the first 0.
std::string_view trimmed(std::string_view field) noexcept;
// Fills a text field with `text`, cut to its size, and spaces (NVMe's way) after it.
void pad_with_spaces(char* field, std::size_t size, std::string_view text) noexcept;
// Fills a text field with `text` and zeroes after it. False when it does not fit with a terminating 0.
[[nodiscard]] bool pad_with_zeroes(char* field, std::size_t size, std::string_view text) noexcept;

}  // namespace varve::nvme
