// The two ways to a disk: a bdev channel of this process and an NVMe queue pair, with the same calls. Templates of
// these, so that what is measured is not the bench.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "bdev/awaits.h"
#include "bdev/channel.h"
#include "nvme/host/queue_pair.h"
#include "nvme/text.h"

namespace varve::app::bench {

struct geometry {
    uint64_t num_blocks = 0;
    uint32_t block_size = 512;
    std::string name;
};

class bdev_port {
  public:
    struct request : bdev::io {
        iovec v{};
    };
    explicit bdev_port(bdev::channel& to) noexcept : _to(to) {}

    void start(request& r, bdev::op what, uint64_t lba, uint32_t blocks, std::byte* data, uint32_t bytes,
               void (*finished)(bdev::io&, void*) noexcept, void* context) noexcept {
        r.operation = what;
        r.lba = lba;
        r.blocks = blocks;
        r.v = {data, bytes};
        r.iov = &r.v;
        r.iov_count = 1;
        r.flags = bdev::io::leave_memory;  // it is nobody's but ours
        r.depth = 0;
        r.status = bdev::status::ok;
        r.push(finished, context);
        _to.submit(r);
    }
    static std::string failure(const request& r) { return std::string(bdev::text_of(r.status)); }

    template <class Slot>
    static void bind(Slot&) noexcept {}
    template <class Slot>
    void go(Slot& s, bdev::op what, uint64_t lba, uint32_t blocks, uint32_t bytes) noexcept {
        start(
            s.request, what, lba, blocks, s.data, bytes,
            [](bdev::io& r, void* slot) noexcept { static_cast<Slot*>(slot)->finished(r.status == bdev::status::ok); },
            &s);
    }

  private:
    bdev::channel& _to;
};

class nvme_port {
  public:
    using request = nvme::host::request;
    nvme_port(nvme::host::queue_pair& to, uint32_t nsid) noexcept : _to(to), _nsid(nsid) {}

    static std::string failure(const request& r) { return nvme::describe(r.code()); }

    template <class Slot>
    static void bind(Slot& s) noexcept {
        s.request.context = &s;
        s.request.done = [](request& r) noexcept { static_cast<Slot*>(r.context)->finished(r.ok()); };
    }
    template <class Slot>
    void go(Slot& s, bdev::op what, uint64_t lba, uint32_t blocks, uint32_t bytes) noexcept {
        request& r = s.request;
        r.command = {};
        r.command.nsid = _nsid;
        r.iov_count = 0;
        r.length = 0;
        switch (what) {
            case bdev::op::read:
                r.command.opcode = nvme::raw(nvme::nvm_opcode::read);
                break;
            case bdev::op::write:
                r.command.opcode = nvme::raw(nvme::nvm_opcode::write);
                break;
            case bdev::op::write_zeroes:
                r.command.opcode = nvme::raw(nvme::nvm_opcode::write_zeroes);
                break;
            case bdev::op::unmap: {
                nvme::dsm_range range{.attributes = 0, .blocks = blocks, .slba = lba};
                std::memcpy(s.data, &range, sizeof range);
                r.command.opcode = nvme::raw(nvme::nvm_opcode::dataset_management);
                r.command.cdw11 = nvme::dsm::deallocate;
                r.set_data({s.data, sizeof range});
                return _to.submit(r);
            }
            default:
                r.command.opcode = nvme::raw(nvme::nvm_opcode::flush);
                return _to.submit(r);
        }
        r.command.set_slba(lba);
        r.command.cdw12 = blocks - 1;
        if (what != bdev::op::write_zeroes) r.set_data({s.data, bytes});
        _to.submit(r);
    }

  private:
    nvme::host::queue_pair& _to;
    const uint32_t _nsid;
};

}  // namespace varve::app::bench
