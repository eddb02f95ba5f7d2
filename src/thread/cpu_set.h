// A set of processors, as SPDK's -m and cpumask parameters write it: "0x3", "3" (hexadecimal too), "[0,2-3]", and
// "0-1,3". In a mask commas mean nothing, as in the kernel's own masks: "0,1" is the mask 01.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "util/result.h"

namespace varve::thread {

class cpu_set {
  public:
    static constexpr unsigned limit = 1024;  // as SPDK's

    static result<cpu_set> parse(std::string_view text);
    std::string to_mask() const;  // "3", lower-case hexadecimal without prefix and leading zeros, as SPDK prints
    bool contains(unsigned cpu) const noexcept;
    void add(unsigned cpu);
    bool empty() const noexcept;
    std::vector<unsigned> list() const;  // ascending
    bool operator==(const cpu_set&) const = default;

  private:
    static result<cpu_set> parse_list(std::string_view text);
    static result<cpu_set> parse_mask(std::string_view text);
    std::vector<uint64_t> _words;  // the last is not zero
};

}  // namespace varve::thread
