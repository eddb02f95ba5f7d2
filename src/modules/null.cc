#include "modules/null.h"

#include <fmt/format.h>

#include <cstring>

#include "bdev/batch.h"

namespace varve::modules {

namespace {

using namespace bdev;

struct create_params {
    std::string name;
    uint64_t num_blocks = 0;
    uint32_t block_size = 0, physical_block_size = 0;
    std::optional<uuid> id;
    uint32_t md_size = 0;
    int32_t dif_type = 0;
    bool dif_is_head_of_md = false;
    uint32_t dif_pi_format = 0;
    uint32_t preferred_write_granularity = 0, preferred_write_alignment = 0, optimal_write_size = 0;
    uint32_t preferred_unmap_granularity = 0, preferred_unmap_alignment = 0;

    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::name, "name", "Name of the new bdev"),
        rpc::required(&create_params::num_blocks, "num_blocks", "Size in blocks"),
        rpc::required(&create_params::block_size, "block_size", "Bytes of data per block, a multiple of 512"),
        rpc::optional(&create_params::physical_block_size, "physical_block_size",
                      "Bytes the medium writes at once; 0: as block_size"),
        rpc::optional(&create_params::md_size, "md_size", "Bytes of metadata per block, interleaved with the data"),
        rpc::optional(&create_params::dif_type, "dif_type", "Type of protection information (only 0: none)"),
        rpc::optional(&create_params::dif_is_head_of_md, "dif_is_head_of_md", "Where protection information would be"),
        rpc::optional(&create_params::dif_pi_format, "dif_pi_format", "Format protection information would have"),
        rpc::optional(&create_params::id, "uuid", "UUID of the new bdev; made up when not given"),
        rpc::optional(&create_params::preferred_write_granularity, "preferred_write_granularity",
                      "Hint for writers, in blocks"),
        rpc::optional(&create_params::preferred_write_alignment, "preferred_write_alignment",
                      "Hint for writers, in blocks"),
        rpc::optional(&create_params::optimal_write_size, "optimal_write_size", "Hint for writers, in blocks"),
        rpc::optional(&create_params::preferred_unmap_granularity, "preferred_unmap_granularity",
                      "Hint for unmapping, in blocks"),
        rpc::optional(&create_params::preferred_unmap_alignment, "preferred_unmap_alignment",
                      "Hint for unmapping, in blocks")};
};

class null_channel final : public batching_channel {
    void do_submit(io& r) noexcept override { gather(r); }
    void run_batch(work* first) noexcept override {
        for (io* r = static_cast<io*>(first); r != nullptr;) {
            io* next = after(*r);
            if (r->operation == op::read && (r->flags & io::leave_memory) == 0) clear(*r);
            complete(*r, status::ok);
            r = next;
        }
    }
    // What the reader's memory held before may be anybody's.
    [[gnu::noinline]] static void clear(const io& r) noexcept {
        for (const iovec *v = r.iov, *end = v + r.iov_count; v != end; ++v) std::memset(v->iov_base, 0, v->iov_len);
    }
};

properties properties_of(const create_params& p) {
    properties out;
    out.name = p.name;
    out.uuid = p.id.value_or(uuid());
    out.product_name = "Null disk";
    out.block_size = p.block_size + p.md_size;
    out.num_blocks = p.num_blocks;
    out.physical_block_size = p.physical_block_size;
    out.metadata_size = p.md_size;
    out.metadata_interleaved = p.md_size != 0;
    out.offered = op_bit(op::read) | op_bit(op::write) | op_bit(op::write_zeroes);
    out.is_volatile = true;
    out.can_abort = true;
    out.leaves_memory = true;
    out.preferred_write_granularity = p.preferred_write_granularity;
    out.preferred_write_alignment = p.preferred_write_alignment;
    out.optimal_write_size = p.optimal_write_size;
    out.preferred_unmap_granularity = p.preferred_unmap_granularity;
    out.preferred_unmap_alignment = p.preferred_unmap_alignment;
    return out;
}

class null_device final : public device {
  public:
    explicit null_device(create_params p) : device(properties_of(p)), _made_with(std::move(p)) {}
    std::string_view module_name() const noexcept override { return "null"; }
    std::unique_ptr<channel> open_channel() override { return std::make_unique<null_channel>(); }
    std::optional<rpc::call> recreate() const override {
        create_params now = _made_with;
        now.num_blocks = num_blocks();
        now.id = props().uuid;
        return rpc::call{"bdev_null_create", rpc::encode(now)};
    }

  private:
    const create_params _made_with;
};

task<std::string> create(registry& devices, create_params p) {
    // SPDK saves block_size with the metadata in it.
    if (p.md_size != 0 && p.block_size % 512 == p.md_size) p.block_size -= p.md_size;
    if (p.block_size % 512 != 0) {
        co_await fail(errc::invalid, fmt::format("block_size {} is not a multiple of 512", p.block_size));
    }
    if (p.physical_block_size % 512 != 0) {
        co_await fail(errc::invalid,
                      fmt::format("physical_block_size {} is not a multiple of 512", p.physical_block_size));
    }
    if (p.num_blocks == 0) co_await fail(errc::invalid, "num_blocks must be more than 0");
    if (p.md_size != 0 && p.md_size % 8 != 0) {
        co_await fail(errc::invalid, fmt::format("md_size {} is not a multiple of 8", p.md_size));
    }
    if (p.dif_type != 0) co_await fail(errc::invalid, "dif_type: protection information is not offered");
    co_return co_await devices.add(std::make_unique<null_device>(std::move(p)));
}

task<> remove(registry& devices, delete_params p) { return devices.remove(std::move(p.name), "null"); }

struct resize_params {
    std::string name;
    uint64_t new_size = 0;
    static constexpr auto fields =
        std::tuple{rpc::required(&resize_params::name, "name", "Name of the bdev"),
                   rpc::required(&resize_params::new_size, "new_size", "New size in MiB, not below the present one")};
};

task<> resize(registry& devices, resize_params p) {
    device* d = devices.find(p.name);
    if (d == nullptr || d->module_name() != "null") {
        co_await fail(errc::no_device, fmt::format("there is no null bdev {}", p.name));
    }
    uint64_t bytes = 0;
    if (!checked_multiply(p.new_size, 1024 * 1024, bytes) || bytes / d->block_size() < d->num_blocks()) {
        co_await fail(errc::invalid,
                      fmt::format("new_size {} MiB is less than {} has, or too much", p.new_size, p.name));
    }
    co_await devices.resize(*d, bytes / d->block_size());
}

}  // namespace

std::unique_ptr<bdev::module> make_null() {
    return make_module("null", rpc::make_method("bdev_null_create", "Create a bdev that keeps nothing", create),
                       rpc::make_method("bdev_null_delete", "Delete a null bdev", remove),
                       rpc::make_method("bdev_null_resize", "Enlarge a null bdev", resize));
}

}  // namespace varve::modules
