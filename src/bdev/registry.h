// All devices of one system, by name, alias and uuid. Belongs to the app thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/descriptor.h"
#include "bdev/device.h"
#include "thread/gate.h"
#include "thread/task.h"
#include "util/result.h"

namespace varve::env {
class system;
}
namespace varve::thread {
class runtime;
}

namespace varve::bdev {

class registry {
  public:
    explicit registry(thread::runtime& threads);
    ~registry();  // after remove_all()
    registry(const registry&) = delete;

    thread::runtime& threads() const noexcept { return _threads; }
    env::system& world() const noexcept;

    // Makes the device known under its name, aliases and uuid, and lets the examiners look at it. errc::exists when
    // any of those is taken; errc::invalid for impossible properties. Returns the name.
    task<std::string> add(std::unique_ptr<device> d);
    // Tells every descriptor, waits until all are closed and all channels gone, and destroys the device.
    // errc::no_device when there is none; with `module`, when it is not that module's. Two removals of one device: the
    // second gets errc::no_device.
    task<> remove(std::string name, std::string module = {});
    // In the reverse order of their making; for the end of the system.
    task<> remove_all();

    // By name, alias or uuid text; null when there is none (or when it is being removed).
    device* find(std::string_view name) const noexcept;
    // errc::no_device; errc::not_permitted (EPERM) for writing what is claimed. Writes to what is read-only fail one by
    // one.
    result<descriptor> open(std::string_view name, open_mode mode, event_handler on_event);
    // As open, but waits up to `timeout` for a device of that name to appear; errc::timed_out.
    task<descriptor> open_later(std::string name, open_mode mode, event_handler on_event, time_ns timeout);

    // Quiet, change, notify. Shrinking makes requests beyond the end fail with out_of_range.
    task<> resize(device& d, uint64_t num_blocks);
    // Writes are refused from now on. Quiet, change.
    task<> make_read_only(device& d);
    result<> add_alias(device& d, std::string alias);
    result<> remove_alias(device& d, std::string_view alias);

    // While the guard lives no request is in the device; new ones wait. Keep a descriptor open meanwhile.
    class frozen {
      public:
        frozen() noexcept = default;
        frozen(device& d, gate::holder stays) noexcept : _device(&d), _stays(std::move(stays)) {}
        frozen(frozen&& other) noexcept
            : _device(std::exchange(other._device, nullptr)), _stays(std::move(other._stays)) {}
        frozen& operator=(frozen&& other) noexcept {
            std::swap(_device, other._device);
            std::swap(_stays, other._stays);
            return *this;
        }
        ~frozen();
        explicit operator bool() const noexcept { return _device != nullptr; }

      private:
        device* _device = nullptr;
        gate::holder _stays;  // a removal waits until it thaws
    };
    task<frozen> freeze(device& d);
    // In a handler of device_event::removed: requests are served as before while the holder lives, so that whoever has
    // built something on the device can write what it must. A device that has gone by itself fails them.
    gate::holder keep_serving(device& d) noexcept;
    // Returns when every request that was in the device at the call has ended; new ones are not kept waiting. Not from
    // inside such a request. errc::no_device when the device is being removed.
    task<> drain(device& d);
    // Recalls what can be recalled, waits for the rest, lets the module reset, goes on. Also as op::reset on a channel.
    task<> reset(device& d);

    // For the device's module: f(its channel) on each thread that has one.
    task<> visit_channels(device& d, std::move_only_function<void(channel&)> f);

    // Runs a task that nobody waits for; its error is not an event. The registry waits for it at the end.
    void background(task<> t);

    // In the order of their making.
    const std::vector<device*>& devices() const noexcept { return _devices; }

    // Hears of every device that comes (true) or goes (false), by name.
    using observer = std::move_only_function<void(bool, const std::string&)>;
    void set_observer(observer o) { _observer = std::move(o); }

    // Called for every device that is added (and not claimed meanwhile), in the order of registration. An examiner that
    // builds something on top opens and claims the device. Its name is for logs.
    using examiner = std::move_only_function<task<>(device&)>;
    void add_examiner(std::string name, examiner look);
    // When automatic examination is off: now, or when a bdev of that name, alias or uuid appears. Once it has gone
    // again nobody asks for it any more. errc::invalid when it is on; errc::exists when it was asked for already.
    task<> examine(std::string name);
    // Those that were asked for.
    const std::vector<std::string>& to_examine() const noexcept;
    // Until no examiner is at work.
    task<> wait_for_examine();
    void set_auto_examine(bool on) noexcept { _auto_examine = on; }
    bool auto_examine() const noexcept { return _auto_examine; }

  private:
    friend struct device_state;
    struct waiting;
    struct index;  // names and those who wait
    result<> check(const device& d) const;
    result<> reserve_names(device& d);
    void free_names(device& d) noexcept;
    task<> look_at(device& d);

    thread::runtime& _threads;
    std::vector<device*> _devices;
    std::unique_ptr<index> _index;
    bool _auto_examine = true;
    observer _observer;
};

}  // namespace varve::bdev
