// A file as a bdev. Requests become file operations of the thread's loop, which hands everything of a turn to the
// kernel at once. FLUSH is fdatasync: what was acknowledged before is on stable media when it succeeds. Without a flush
// it may be in the page cache or the drive's, and the device says so (write_cache).
#include "modules/file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "bdev/layer.h"
#include "env/loop.h"
#include "env/system.h"

namespace varve::modules {

namespace {

using namespace bdev;

constexpr uint32_t segments_max = 1024;  // IOV_MAX

class file_channel final : public channel {
  public:
    file_channel(thread::thread& on, env::file& target, uint32_t block_size)
        : _on(on), _loop(on.loop()), _target(target), _block_size(block_size) {
        _on.pin();  // operations are bound to this loop
    }
    ~file_channel() override { _on.unpin(); }

  private:
    struct operation : env::file_op {
        operation* next_free = nullptr;
        io* request = nullptr;
        file_channel* channel = nullptr;
    };
    static constexpr std::size_t per_chunk = 32;

    void do_submit(io& r) noexcept override {
        operation& o = take();
        o.request = &r;
        o.offset = r.lba * _block_size;
        o.length = uint64_t{r.blocks} * _block_size;
        o.iov = nullptr;
        o.iov_count = 0;
        switch (r.operation) {
            case op::read:
            case op::write:
                o.kind = r.operation == op::read ? env::file_op_kind::read : env::file_op_kind::write;
                o.iov = r.iov;
                o.iov_count = r.iov_count;
                break;
            case op::unmap:
                o.kind = env::file_op_kind::unmap;
                break;
            case op::write_zeroes:
                o.kind = env::file_op_kind::write_zeroes;
                break;
            default:
                o.kind = env::file_op_kind::flush;
                break;
        }
        start(o);
    }

    void start(operation& o) noexcept {
        o.progress = 0;
        o.result = 0;
        _loop.submit(o);
    }

    void done(operation& o) noexcept {
        io& r = *o.request;
        status outcome = o.result >= 0 ? status::ok : status_of(o.result);
        // Less than asked for, without an error: the file has become shorter.
        if (o.iov_count != 0 && o.result >= 0 && static_cast<uint64_t>(o.result) < o.length) {
            outcome = status::media_error;
        }
        if (outcome == status::ok && (r.flags & io::fua) != 0 && o.kind != env::file_op_kind::read &&
            o.kind != env::file_op_kind::flush) {
            o.kind = env::file_op_kind::flush;  // forced unit access: the data, then the media
            o.iov_count = 0;
            return start(o);
        }
        o.next_free = _free;
        _free = &o;
        complete(r, outcome);
    }

    static status status_of(int64_t negated_errno) noexcept {
        switch (-negated_errno) {
            case ENOSPC:
            case EDQUOT:
                return status::no_space;
            case EROFS:
            case EPERM:
            case EBADF:
                return status::read_only;
            case ENODEV:
            case ENXIO:
                return status::no_device;
            case ENOMEM:
                return status::no_memory;
            case EOPNOTSUPP:
                return status::unsupported;
            case EINVAL:
                return status::invalid;
            case ECANCELED:
                return status::aborted;
            default:
                return status::media_error;
        }
    }

    // Grows to the largest number of operations there ever were at once, and stays there.
    operation& take() noexcept {
        if (_free == nullptr) [[unlikely]]
            grow();
        operation& o = *_free;
        _free = o.next_free;
        return o;
    }
    void grow() {
        auto chunk = std::make_unique<operation[]>(per_chunk);
        for (std::size_t i = 0; i < per_chunk; ++i) {
            operation& o = chunk[i];
            o.channel = this;
            o.target = &_target;
            o.done = [](env::file_op& ended) noexcept {
                auto& mine = static_cast<operation&>(ended);
                file_channel& channel = *mine.channel;
                thread::entered in(channel._on);
                channel.done(mine);
            };
            o.next_free = _free;
            _free = &o;
        }
        _chunks.push_back(std::move(chunk));
    }

    thread::thread& _on;
    env::loop& _loop;
    env::file& _target;
    const uint32_t _block_size;
    operation* _free = nullptr;
    std::vector<std::unique_ptr<operation[]>> _chunks;
};

struct aio_params {
    std::string name, filename;
    uint32_t block_size = 0;
    bool readonly = false, fallocate = false;
    std::optional<uuid> id;
    bool nowait = false;
    static constexpr auto fields = std::tuple{
        rpc::required(&aio_params::name, "name", "Name of the new bdev"),
        rpc::required(&aio_params::filename, "filename", "Path of the file or block device"),
        rpc::optional(&aio_params::block_size, "block_size", "Bytes per block; 0: as the block device says"),
        rpc::optional(&aio_params::readonly, "readonly", "Refuse writes"),
        rpc::optional(&aio_params::fallocate, "fallocate",
                      "Without effect: unmapping is offered where the file system can"),
        rpc::optional(&aio_params::id, "uuid", "UUID of the new bdev; made from name and path when not given"),
        rpc::optional(&aio_params::nowait, "nowait", "Without effect: no request waits in the caller"),
    };
};

struct uring_params {
    std::string filename, name;
    uint32_t block_size = 0;
    std::optional<uuid> id;
    static constexpr auto fields = std::tuple{
        rpc::required(&uring_params::filename, "filename", "Path of the file or block device"),
        rpc::required(&uring_params::name, "name", "Name of the new bdev"),
        rpc::optional(&uring_params::block_size, "block_size", "Bytes per block; 0: as the block device says"),
        rpc::optional(&uring_params::id, "uuid", "UUID of the new bdev; made from name and path when not given"),
    };
};

enum class flavour : uint8_t { aio, uring };

constexpr const char* module_of(flavour f) noexcept { return f == flavour::aio ? "aio" : "uring"; }

properties properties_of(const aio_params& p, const env::file& target, uint32_t block_size, flavour f) {
    properties out;
    out.name = p.name;
    out.uuid = p.id.value_or(layered_uuid(uuid(), p.name + '\n' + p.filename));
    out.product_name = f == flavour::aio ? "AIO disk" : "URING bdev";
    out.block_size = block_size;
    out.num_blocks = target.size() / block_size;
    out.offered = op_bit(op::read) | op_bit(op::flush);
    if (!target.read_only()) {
        out.offered |= op_bit(op::write);
        if (target.can_unmap()) out.offered |= op_bit(op::unmap) | op_bit(op::write_zeroes);
    }
    out.read_only = target.read_only();
    out.write_cache = !target.read_only();
    out.unmap_zeroes = target.can_unmap();
    out.alignment = target.alignment();
    out.max_segments = segments_max;
    return out;
}

class file_device final : public device {
  public:
    file_device(aio_params p, std::unique_ptr<env::file> target, uint32_t block_size, flavour f)
        : device(properties_of(p, *target, block_size, f)),
          _made_with(std::move(p)),
          _target(std::move(target)),
          _flavour(f) {}

    std::string_view module_name() const noexcept override { return module_of(_flavour); }
    std::unique_ptr<channel> open_channel() override {
        return std::make_unique<file_channel>(*thread::thread::current(), *_target, block_size());
    }
    std::optional<rpc::call> recreate() const override {
        aio_params now = _made_with;
        now.block_size = block_size();
        now.id = props().uuid;
        if (_flavour == flavour::aio) return rpc::call{"bdev_aio_create", rpc::encode(now)};
        return rpc::call{"bdev_uring_create",
                         rpc::encode(uring_params{now.filename, now.name, now.block_size, now.id})};
    }
    json::value driver_specific() const override {
        if (_flavour == flavour::uring) return json::object{{"uring", json::object{{"filename", _made_with.filename}}}};
        return json::object{{"aio", json::object{{"filename", _made_with.filename},
                                                 {"block_size_override", _made_with.block_size != 0},
                                                 {"readonly", _made_with.readonly},
                                                 {"fallocate", _made_with.fallocate},
                                                 {"nowait", _made_with.nowait}}}};
    }
    env::file& target() noexcept { return *_target; }

  private:
    const aio_params _made_with;
    const std::unique_ptr<env::file> _target;
    const flavour _flavour;
};

result<std::unique_ptr<env::file>> open_file(env::system& world, const aio_params& p) {
    env::open_options how{.read_only = p.readonly};
    auto opened = world.open(p.filename, how);
    if (!opened) return fail(std::move(opened).error());
    // Blocks smaller than what direct I/O can address: through the page cache then.
    if (p.block_size != 0 && p.block_size % (*opened)->alignment() != 0) {
        how.direct = false;
        opened = world.open(p.filename, how);
    }
    return opened;
}

// 0 for a block device means its own block size; a regular file has none.
result<uint32_t> choose_block_size(const aio_params& p, const env::file& target) {
    uint32_t own = target.is_block_device() ? target.logical_block_size() : 0;
    if (p.block_size == 0 && own == 0)
        return fail(errc::invalid,
                    fmt::format("block_size must be given: {} is a file and has none of its own", p.filename));
    uint32_t size = p.block_size != 0 ? p.block_size : own;
    if (size < 512 || !is_power_of_two(size))
        return fail(errc::invalid, fmt::format("block_size {} is not a power of two from 512 on", size));
    if (own != 0 && size % own != 0)
        return fail(errc::invalid, fmt::format("block_size {} is less than the {} bytes of {}", size, own, p.filename));
    if (target.size() % size != 0)
        return fail(errc::invalid, fmt::format("the {} bytes of {} are not a multiple of block_size {}", target.size(),
                                               p.filename, size));
    return size;
}

task<std::string> create(registry& devices, aio_params p, flavour f) {
    if (devices.find(p.name) != nullptr)
        co_await fail(errc::exists, fmt::format("bdev name {} already exists", p.name));
    std::unique_ptr<env::file> target = co_await open_file(devices.world(), p);
    uint32_t block_size = co_await choose_block_size(p, *target);
    co_return co_await devices.add(std::make_unique<file_device>(std::move(p), std::move(target), block_size, f));
}

task<> rescan(registry& devices, std::string name, flavour f) {
    device* found = devices.find(name);
    if (found == nullptr || found->module_name() != module_of(f))
        co_await fail(errc::no_device, fmt::format("there is no {} bdev {}", module_of(f), name));
    auto& disk = static_cast<file_device&>(*found);
    uint64_t bytes = co_await disk.target().refresh();
    uint64_t blocks = bytes / disk.block_size();
    if (blocks != disk.num_blocks()) co_await devices.resize(disk, blocks);
}

task<std::string> create_aio(registry& devices, aio_params p) { return create(devices, std::move(p), flavour::aio); }
task<> rescan_aio(registry& devices, delete_params p) { return rescan(devices, std::move(p.name), flavour::aio); }
task<> remove_aio(registry& devices, delete_params p) { return devices.remove(std::move(p.name), "aio"); }

task<std::string> create_uring(registry& devices, uring_params p) {
    aio_params same{
        .name = std::move(p.name), .filename = std::move(p.filename), .block_size = p.block_size, .id = p.id};
    auto made = co_await as_result(create(devices, std::move(same), flavour::uring));
    // SPDK's clients know one error of this method.
    if (!made) co_return fail(error(errc::rpc_internal, "Unable to create URING bdev.: " + made.error().message()));
    co_return std::move(*made);
}
task<> rescan_uring(registry& devices, delete_params p) { return rescan(devices, std::move(p.name), flavour::uring); }
task<> remove_uring(registry& devices, delete_params p) { return devices.remove(std::move(p.name), "uring"); }

}  // namespace

std::unique_ptr<bdev::module> make_aio() {
    return make_module("aio", rpc::make_method("bdev_aio_create", "Make a file or block device a bdev", create_aio),
                       rpc::make_method("bdev_aio_rescan", "Take the file's present size", rescan_aio),
                       rpc::make_method("bdev_aio_delete", "Delete an aio bdev; the file stays", remove_aio));
}

std::unique_ptr<bdev::module> make_uring() {
    return make_module("uring",
                       rpc::make_method("bdev_uring_create", "Make a file or block device a bdev", create_uring),
                       rpc::make_method("bdev_uring_rescan", "Take the file's present size", rescan_uring),
                       rpc::make_method("bdev_uring_delete", "Delete a uring bdev; the file stays", remove_uring));
}

}  // namespace varve::modules
