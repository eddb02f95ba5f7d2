#include "bdev/block_params.h"

#include <fmt/format.h>

namespace varve::bdev {

namespace {
constexpr uint32_t sector = 512;
}

bool block_params::take_metadata_off() noexcept {
    if (md_size == 0 || block_size % sector != md_size) return false;
    block_size -= md_size;
    return true;
}

result<> block_params::check() const {
    if (num_blocks == 0) return fail(errc::invalid, "num_blocks must be more than 0");
    if (block_size == 0 || block_size % sector != 0) {
        return fail(errc::invalid, fmt::format("block_size {} is not a multiple of {}", block_size, sector));
    }
    if (physical_block_size % sector != 0) {
        return fail(errc::invalid,
                    fmt::format("physical_block_size {} is not a multiple of {}", physical_block_size, sector));
    }
    if (dif_type != 0) return fail(errc::invalid, "dif_type: protection information is not offered");
    return {};
}

properties block_params::describe(const char* product_name, bool metadata_interleaved) const {
    properties out;
    out.name = name;
    out.uuid = id.value_or(uuid());
    out.product_name = product_name;
    out.block_size = block_size + (metadata_interleaved ? md_size : 0);
    out.num_blocks = num_blocks;
    out.physical_block_size = physical_block_size;
    out.metadata_size = md_size;
    out.metadata_interleaved = metadata_interleaved;
    out.is_volatile = true;
    out.can_abort = true;
    return out;
}

}  // namespace varve::bdev
