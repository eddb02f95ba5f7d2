#include "modules/null.h"

#include <fmt/format.h>

#include <cstring>

#include "bdev/batch.h"
#include "bdev/block_params.h"

namespace varve::modules {

namespace {

using namespace bdev;

struct create_params : block_params {
    uint32_t preferred_write_granularity = 0, preferred_write_alignment = 0, optimal_write_size = 0;
    uint32_t preferred_unmap_granularity = 0, preferred_unmap_alignment = 0;

    static constexpr auto fields = rpc::extend(
        block_params::fields, rpc::required(&create_params::name, "name", "Name of the new bdev"),
        rpc::optional(&create_params::preferred_write_granularity, "preferred_write_granularity",
                      "Hint for writers, in blocks"),
        rpc::optional(&create_params::preferred_write_alignment, "preferred_write_alignment",
                      "Hint for writers, in blocks"),
        rpc::optional(&create_params::optimal_write_size, "optimal_write_size", "Hint for writers, in blocks"),
        rpc::optional(&create_params::preferred_unmap_granularity, "preferred_unmap_granularity",
                      "Hint for unmapping, in blocks"),
        rpc::optional(&create_params::preferred_unmap_alignment, "preferred_unmap_alignment",
                      "Hint for unmapping, in blocks"));
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
    properties out = p.describe("Null disk", p.md_size != 0);
    out.offered = op_bit(op::read) | op_bit(op::write) | op_bit(op::write_zeroes);
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
    p.take_metadata_off();
    co_await p.check();
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
