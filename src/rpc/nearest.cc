#include "rpc/nearest.h"

#include <algorithm>
#include <vector>

namespace varve::rpc {

namespace {

std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

}  // namespace

std::string_view nearest(std::string_view given, std::span<const std::string_view> known) {
    constexpr std::size_t longest = 128;  // what a client sends may be megabytes
    if (given.size() > longest) return {};
    std::size_t best = given.size() / 3 + 1;
    std::string_view found;
    for (std::string_view name : known) {
        if (std::size_t d = distance(given, name); d < best) {
            best = d;
            found = name;
        }
    }
    return found;
}

}  // namespace varve::rpc
