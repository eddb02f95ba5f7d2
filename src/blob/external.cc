#include "blob/external.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "bdev/awaits.h"
#include "bdev/device.h"
#include "thread/runtime.h"

namespace varve::blob {

using bdev::io;
using bdev::status;

// --- on one thread

// What is read of the device for a request of the blob: its blocks may be smaller, and fewer.
struct external_channel::part {
    io request;
    io* whole = nullptr;
    external_channel* in = nullptr;
    std::vector<iovec> memory;  // of one that ends at the device's end
    part* next_free = nullptr;
};

external_channel::external_channel(external_parent& of) : _of(of) {
    if (const bdev::descriptor* from = of._device.load(std::memory_order_acquire)) open(*from);
}

external_channel::~external_channel() { VARVE_ASSERT(_under_way == 0); }

void external_channel::open(const bdev::descriptor& from) {
    if (!_device) _device = from.channel();
    _closing = false;
}

task<> external_channel::close() {
    _closing = true;
    if (_under_way != 0) {
        _idle.reset();
        co_await _idle.wait();
    }
    _device = {};
}

external_channel::part* external_channel::take() noexcept {
    part* p = _free;
    if (p == nullptr) {
        p = _parts.emplace_back(std::make_unique<part>()).get();
        p->in = this;
    } else {
        _free = p->next_free;
    }
    ++_under_way;
    return p;
}

namespace {

// The first `bytes` of the memory go to `first`; what follows is cleared.
void cut(const io& r, uint64_t bytes, std::vector<iovec>& first) {
    first.clear();
    for (uint32_t i = 0; i < r.iov_count; ++i) {
        const uint64_t here = std::min<uint64_t>(r.iov[i].iov_len, bytes);
        if (here > 0) first.push_back({r.iov[i].iov_base, here});
        std::memset(static_cast<std::byte*>(r.iov[i].iov_base) + here, 0, r.iov[i].iov_len - here);
        bytes -= here;
    }
}

}  // namespace

void external_channel::read(io& r, uint64_t offset, uint64_t bytes) noexcept {
    if (!_device || _closing) return bdev::complete_later(r, status::no_device);
    const uint32_t block = _device->owner().block_size();
    const uint64_t size = _of.size(), there = offset < size ? std::min(bytes, size - offset) : 0;
    part& p = *take();
    p.whole = &r;
    io& below = p.request;
    below.operation = bdev::op::read;
    below.flags = 0;
    below.status = status::ok;
    below.lba = offset / block;
    below.blocks = static_cast<uint32_t>(there / block);
    below.iov = r.iov;
    below.iov_count = r.iov_count;
    if (there < bytes) {
        cut(r, there, p.memory);
        below.iov = p.memory.data();
        below.iov_count = static_cast<uint32_t>(p.memory.size());
    }
    below.push(part_finished, &p);
    if (there == 0) return bdev::complete_later(below, status::ok);
    _device->submit(below);
}

void external_channel::part_finished(io& below, void* context) noexcept {
    part& p = *static_cast<part*>(context);
    external_channel& me = *p.in;
    io& r = *p.whole;
    p.next_free = me._free;
    me._free = &p;
    if (--me._under_way == 0) me._idle.set();
    bdev::complete(r, below.status);
}

// --- the parent

external_parent::external_parent(thread::runtime& threads, std::string id)
    : _threads(threads),
      _id(std::move(id)),
      _channels("external parent", [this] { return std::make_unique<external_channel>(*this); }) {}

external_parent::~external_parent() { VARVE_ASSERT(!_descriptor && !_mine); }

result<> external_parent::check(const bdev::device& d, uint32_t io_unit) {
    if (d.props().metadata_interleaved) {
        return fail(errc::invalid, fmt::format("the blocks of {} have metadata in them", d.name()));
    }
    if (d.block_size() == 0 || io_unit % d.block_size() != 0) {
        return fail(errc::invalid, fmt::format("{} has blocks of {} bytes, which do not divide the store's of {}",
                                               d.name(), d.block_size(), io_unit));
    }
    return {};
}

void external_parent::resized() noexcept {
    if (_descriptor) _size.store(_descriptor->num_blocks() * _descriptor->block_size(), std::memory_order_release);
}

task<> external_parent::attach(bdev::descriptor d) {
    auto one = co_await _changing.lock();
    if (attached()) co_return;
    _descriptor = std::move(d);
    resized();
    _device.store(&_descriptor, std::memory_order_release);
    // Channels that were there before; those that come now open it themselves.
    co_await _channels.for_each_channel([this](external_channel& c) { c.open(_descriptor); });
    _mine = _channels.get();
    _trouble.clear();
}

task<> external_parent::detach(std::string why, std::move_only_function<bool()> still) {
    auto one = co_await _changing.lock();
    if (!attached() || (still && !still())) co_return;
    _trouble = std::move(why);
    _device.store(nullptr, std::memory_order_release);
    // Whoever was about to open a channel has done so afterwards, and it is visited.
    co_await _threads.for_each_thread([](thread::thread&) {});
    co_await _channels.for_each_channel([](external_channel& c) { return c.close(); });
    _mine = {};
    _descriptor.close();
}

task<> external_parent::end() {
    co_await detach("the store is closed");
    co_await _channels.closed();
}

task<> external_parent::read(uint64_t offset, std::span<std::byte> to) {
    struct reading {
        external_channel& on;
        io& r;
        uint64_t offset, bytes;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> who) noexcept {
            r.push([](io&, void* frame) noexcept { std::coroutine_handle<>::from_address(frame).resume(); },
                   who.address());
            on.read(r, offset, bytes);
        }
        void await_resume() const noexcept {}
    };
    auto here = channel();
    iovec memory{to.data(), to.size()};
    io r;
    r.operation = bdev::op::read;
    r.iov = &memory;
    r.iov_count = 1;
    co_await reading{*here, r, offset, to.size()};
    if (r.status != status::ok) {
        co_await fail(bdev::code_of(r.status),
                      fmt::format("external snapshot {}: {}", _id.c_str(),
                                  _trouble.empty() ? bdev::text_of(r.status) : std::string_view(_trouble)));
    }
}

}  // namespace varve::blob
