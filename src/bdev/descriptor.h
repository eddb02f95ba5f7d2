// An open device. Belongs to the app thread; channel() alone is called on the threads that do I/O.
//
//   auto disk = registry.open("Malloc0", open_mode::read_write, [](device_event e) { ... });
//   channel_ref io = disk->channel();       // on the thread that will submit
//   io->submit(request);
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "bdev/channel.h"
#include "util/result.h"

namespace varve::bdev {

class device;
struct open_record;
struct channel_core;

enum class open_mode : uint8_t { read_only, read_write };

enum class device_event : uint8_t {
    removed,  // close the descriptor soon; requests fail with no_device unless registry::keep_serving is asked now
    resized,  // num_blocks has changed
};
// Runs on the app thread, never from inside a call to the registry made by its owner.
using event_handler = std::move_only_function<void(device_event)>;

enum class claim_type : uint8_t {
    none,
    exclusive_write,         // a module's; others may read
    read_many_write_one,     // this descriptor is the only writer
    read_many_write_none,    // nobody writes while this claim stands
    read_many_write_shared,  // writers that know the key
};
std::string_view name_of(claim_type type) noexcept;  // as SPDK spells it

// A count on the current thread's channel of a device. Released on the thread it was taken on; when the last one goes,
// so does the channel, which must have no requests then.
class channel_ref {
  public:
    channel_ref() noexcept = default;
    channel_ref(channel_ref&& other) noexcept
        : _core(std::exchange(other._core, nullptr)), _channel(std::exchange(other._channel, nullptr)) {}
    channel_ref& operator=(channel_ref&& other) noexcept {
        std::swap(_core, other._core);
        std::swap(_channel, other._channel);
        return *this;
    }
    ~channel_ref() {
        if (_core != nullptr) release();
    }
    channel& operator*() const noexcept { return *_channel; }
    channel* operator->() const noexcept { return _channel; }
    explicit operator bool() const noexcept { return _core != nullptr; }

  private:
    friend class descriptor;
    channel_ref(channel_core& core, bdev::channel& of) noexcept : _core(&core), _channel(&of) {}
    void release() noexcept;
    channel_core* _core = nullptr;
    bdev::channel* _channel = nullptr;
};

class descriptor {
  public:
    descriptor() noexcept = default;
    descriptor(descriptor&& other) noexcept : _open(std::exchange(other._open, nullptr)) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(_open, other._open);
        return *this;
    }
    ~descriptor() { close(); }
    void close() noexcept;  // gives up the claim, too
    explicit operator bool() const noexcept { return _open != nullptr; }

    device& operator*() const noexcept { return target(); }
    device* operator->() const noexcept { return &target(); }
    device& target() const noexcept;
    bool writable() const noexcept;

    // On any thread, while the descriptor is open. Shared by everyone who opened the device and runs on that thread.
    // Requests wait inside until the app thread has heard of the channel.
    channel_ref channel() const;

    // errc::not_permitted when another claim or writer is in the way. A claim that allows writing makes a read-only
    // descriptor writable. Released with the descriptor.
    result<> claim(claim_type type, std::string_view module, uint64_t shared_key = 0);

  private:
    friend class registry;
    explicit descriptor(open_record& open) noexcept : _open(&open) {}
    open_record* _open = nullptr;
};

}  // namespace varve::bdev
