// The version of this build, as `varve version`, spdk_get_version and the controllers' firmware revision show it.
#pragma once

#include <string_view>

namespace varve {

/// "major.minor.patch".
std::string_view version() noexcept;

}  // namespace varve
