// A bdev in memory that does what a test tells it: holds requests back, fails them, counts them.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "bdev/channel.h"
#include "bdev/device.h"
#include "thread/thread.h"

namespace varve::targets::nvmf::protocol_tests {

class test_disk final : public bdev::device {
  public:
    explicit test_disk(bdev::properties p) : device(std::move(p)), blocks(num_blocks() * block_size()) {}

    bool hold = false;       // requests wait for let_go()
    bool abortable = false;  // and can be recalled meanwhile
    bdev::status answer = bdev::status::ok;
    std::vector<std::byte> blocks;
    struct waiting {
        bdev::io* request;
        thread::thread* on;
    };
    std::deque<waiting> held;
    std::vector<bdev::op> seen;
    uint64_t channels = 0;  // open now

    // Carries out everything that waits.
    void let_go() {
        hold = false;
        for (auto [r, on] : std::exchange(held, {})) on->post([this, r] { carry_out(*r); });
    }
    void carry_out(bdev::io& r) { bdev::complete(r, answer == bdev::status::ok ? perform(r) : answer); }

    std::string_view module_name() const noexcept override { return "test"; }
    std::unique_ptr<bdev::channel> open_channel() override { return std::make_unique<own_channel>(*this); }

  private:
    struct own_channel final : bdev::channel {
        explicit own_channel(test_disk& d) : of(d) { ++of.channels; }
        ~own_channel() override { --of.channels; }
        void do_submit(bdev::io& r) noexcept override {
            of.seen.push_back(r.operation);
            if (of.hold) return of.held.push_back({&r, thread::thread::current()});
            bdev::complete_later(r, of.answer == bdev::status::ok ? of.perform(r) : of.answer);
        }
        bool do_abort(bdev::io& r) noexcept override {
            if (!of.abortable || std::erase_if(of.held, [&](auto& w) { return w.request == &r; }) == 0) return false;
            bdev::complete_later(r, bdev::status::aborted);
            return true;
        }
        test_disk& of;
    };

    bdev::status perform(bdev::io& r) noexcept {
        using enum bdev::op;
        if (r.operation == flush) return bdev::status::ok;
        std::byte* at = blocks.data() + r.lba * block_size();
        std::size_t size = std::size_t{r.blocks} * block_size();
        switch (r.operation) {
            case unmap:
            case write_zeroes:
                std::memset(at, 0, size);
                return bdev::status::ok;
            case copy:
                std::memmove(at, blocks.data() + r.source_lba * block_size(), size);
                return bdev::status::ok;
            case read:
                if (props().leaves_memory && (r.flags & bdev::io::leave_memory) != 0) return bdev::status::ok;
                std::memcpy(r.iov[0].iov_base, at, size);
                return bdev::status::ok;
            case write:
                if (props().leaves_memory) return bdev::status::ok;
                std::memcpy(at, r.iov[0].iov_base, size);
                return bdev::status::ok;
            case compare:
                return std::memcmp(at, r.iov[0].iov_base, size) == 0 ? bdev::status::ok : bdev::status::compare_failed;
            case compare_and_write:
                if (std::memcmp(at, r.iov[0].iov_base, size) != 0) return bdev::status::compare_failed;
                std::memcpy(at, r.iov[1].iov_base, size);
                return bdev::status::ok;
            default:
                return bdev::status::unsupported;
        }
    }
};

}  // namespace varve::targets::nvmf::protocol_tests
