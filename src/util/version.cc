#include "util/version.h"

namespace varve {

std::string_view version() noexcept { return VARVE_VERSION; }

}  // namespace varve
