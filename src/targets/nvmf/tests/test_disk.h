// For tests: a bdev in memory that can be held, can fail any operation with any status, and counts what it is asked.
#pragma once

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "bdev/channel.h"
#include "bdev/device.h"
#include "thread/thread.h"
#include "util/list.h"

namespace varve::targets::nvmf {

constexpr auto op_count = static_cast<std::size_t>(bdev::op::count);

class test_disk final : public bdev::device {
  public:
    explicit test_disk(bdev::properties p) : device(std::move(p)), blocks(num_blocks() * block_size()) {}
    std::string_view module_name() const noexcept override { return "test"; }
    std::unique_ptr<bdev::channel> open_channel() override { return std::make_unique<channel>(*this); }

    // Any thread.
    std::atomic<bool> held = false;  // requests wait until it is false again
    std::array<std::atomic<bdev::status>, op_count> answer{};
    std::array<std::atomic<uint64_t>, op_count> asked{};
    std::atomic<uint64_t> waiting = 0;  // requests that are held

    uint64_t times(bdev::op o) const noexcept { return asked[static_cast<std::size_t>(o)]; }
    void fail(bdev::op o, bdev::status with) noexcept { answer[static_cast<std::size_t>(o)] = with; }

    std::vector<std::byte> blocks;

  private:
    class channel final : public bdev::channel, work {
      public:
        explicit channel(test_disk& of) noexcept : _of(of), _timer(*this) {
            run = [](work& w) noexcept { static_cast<channel&>(w).look(); };
        }

      private:
        void do_submit(bdev::io& r) noexcept override {
            _of.asked[static_cast<std::size_t>(r.operation)] += 1;
            _waiting.push(r);
            if (_of.held) _of.waiting += 1;
            if (!_timer.running()) _timer.start(_of.held ? 100 * microseconds : 0);
        }
        void look() noexcept {
            if (_of.held) return _timer.start(100 * microseconds);
            work* next = _waiting.take_all();
            while (next != nullptr) {
                auto& r = static_cast<bdev::io&>(*next);
                next = next->next;
                bdev::status wanted = _of.answer[static_cast<std::size_t>(r.operation)];
                complete(r, wanted == bdev::status::ok ? carry_out(r) : wanted);
            }
            _of.waiting = 0;
        }
        bdev::status carry_out(bdev::io& r) noexcept {
            using enum bdev::op;
            std::size_t size = _of.block_size();
            std::byte* at = _of.blocks.data() + r.lba * size;
            std::size_t left = r.blocks * size;
            if (r.operation == unmap || r.operation == write_zeroes) std::memset(at, 0, left);
            if (r.operation == copy) std::memmove(at, _of.blocks.data() + r.source_lba * size, left);
            bool data = r.operation == read || r.operation == write || r.operation == compare;
            for (const iovec* v = r.iov; data && left > 0; ++v) {
                std::size_t here = std::min(left, v->iov_len);
                if (r.operation == read) std::memcpy(v->iov_base, at, here);
                if (r.operation == write) std::memcpy(at, v->iov_base, here);
                if (r.operation == compare && std::memcmp(at, v->iov_base, here) != 0)
                    return bdev::status::compare_failed;
                at += here;
                left -= here;
            }
            return bdev::status::ok;
        }

        test_disk& _of;
        thread::timer _timer;
        queue<work> _waiting;
    };
};

}  // namespace varve::targets::nvmf
