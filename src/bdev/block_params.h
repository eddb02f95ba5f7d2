// What methods that make bdevs of nothing but memory (null, malloc) have in common: the shape of the blocks.
#pragma once

#include <optional>

#include "bdev/module.h"
#include "rpc/field.h"

namespace varve::bdev {

struct block_params {
    std::string name;
    uint64_t num_blocks = 0;
    uint32_t block_size = 0, physical_block_size = 0;
    std::optional<uuid> id;
    uint32_t md_size = 0;
    int32_t dif_type = 0;
    bool dif_is_head_of_md = false;
    uint32_t dif_pi_format = 0;

    static constexpr auto fields = std::tuple{
        rpc::required(&block_params::num_blocks, "num_blocks", "Size in blocks"),
        rpc::required(&block_params::block_size, "block_size", "Bytes of data per block, a multiple of 512"),
        rpc::optional(&block_params::physical_block_size, "physical_block_size",
                      "Bytes the medium writes at once; 0: as block_size"),
        rpc::optional(&block_params::id, "uuid", "UUID of the new bdev; made up when not given"),
        rpc::optional(&block_params::md_size, "md_size", "Bytes of metadata per block",
                      rpc::one_of<0u, 8u, 16u, 32u, 64u, 128u>),
        rpc::optional(&block_params::dif_type, "dif_type", "Type of protection information (only 0: none)"),
        rpc::optional(&block_params::dif_is_head_of_md, "dif_is_head_of_md", "Where protection information would be"),
        rpc::optional(&block_params::dif_pi_format, "dif_pi_format", "Format protection information would have")};

    // SPDK saves block_size with interleaved metadata in it: then that is taken off, and the answer is true.
    bool take_metadata_off() noexcept;
    // errc::invalid
    result<> check() const;
    properties describe(const char* product_name, bool metadata_interleaved) const;
};

}  // namespace varve::bdev
