// The parent of a clone that lies outside of the store: any device, opened for reading. One object for each id that
// blobs name, as long as the store lives; whether its device is there may change. While it is not, what shows through
// from it cannot be read: bdev::status::no_device.
//
// The device may have smaller blocks than the store (its io unit is a multiple of them) and any size: beyond its end
// there are zeroes.
//
// Threads: the store's, except channel() and external_channel.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/descriptor.h"
#include "bdev/io.h"
#include "thread/io_device.h"
#include "thread/sync.h"
#include "thread/task.h"

namespace varve::blob {

// Where a store gets such devices from. Outlives the stores that know it.
class external_devices {
  public:
    // Opens the device for reading only and, if need be, claims it against writing; `on_event` goes to the registry.
    // `id` is what the metadata has: for logical volumes the text of the device's uuid and a zero, 37 bytes.
    // An error (errc::no_device, or why it may not be had) leaves the blobs on it degraded until
    // store::attach_external().
    virtual result<bdev::descriptor> open_external(std::string_view id, bdev::event_handler on_event) = 0;
    // It has been removed while in use: the blobs on it are degraded.
    virtual void external_lost(std::string_view /*id*/) noexcept {}

  protected:
    ~external_devices() = default;
};

class external_parent;

// An external parent on one thread.
class external_channel {
  public:
    explicit external_channel(external_parent& of);
    external_channel(const external_channel&) = delete;
    ~external_channel();

    // Completes a read of the store's blob with what lies at the same place here; later.
    void read(bdev::io& r, uint64_t offset, uint64_t bytes) noexcept;

  private:
    friend class external_parent;
    struct part;
    void open(const bdev::descriptor& from);
    // Gives the device's channel back when no read is under way.
    task<> close();
    part* take() noexcept;
    static void part_finished(bdev::io& r, void* context) noexcept;

    external_parent& _of;
    bdev::channel_ref _device;
    bool _closing = false;
    unsigned _under_way = 0;
    event _idle;
    part* _free = nullptr;
    std::vector<std::unique_ptr<part>> _parts;
};

class external_parent {
  public:
    static constexpr std::size_t id_max = 4000;  // what an xattr holds

    external_parent(thread::runtime& threads, std::string id);
    ~external_parent();  // after end()

    const std::string& id() const noexcept { return _id; }
    bool attached() const noexcept { return _device.load(std::memory_order_relaxed) != nullptr; }
    uint64_t size() const noexcept { return _size.load(std::memory_order_acquire); }  // bytes; any thread
    // Null while there is none.
    bdev::device* device() const noexcept { return attached() ? &*_descriptor : nullptr; }
    // Why it is not there.
    const std::string& trouble() const noexcept { return _trouble; }
    void set_trouble(std::string why) { _trouble = std::move(why); }

    // errc::invalid when a store with such io units cannot use it.
    static result<> check(const bdev::device& d, uint32_t io_unit);

    // From now on reads find it. Nothing when there is one already.
    task<> attach(bdev::descriptor d);
    // From now on they fail; those under way have ended when it returns, and the descriptor is closed.
    // `still`: asked when nobody else attaches or detaches it any more; false: it stays. Empty: it goes.
    task<> detach(std::string why, std::move_only_function<bool()> still = {});
    // For good.
    task<> end();
    void resized() noexcept;

    // The current thread's; for whoever may read from it. Any thread.
    thread::channel_ref<external_channel> channel() { return _channels.get(); }
    // Into memory of the store's; zeroes beyond the end.
    task<> read(uint64_t offset, std::span<std::byte> to);

    static constexpr std::size_t copies_at_once = 16;
    semaphore copies{copies_at_once};  // of clusters of it, into those of blobs; each has memory

    unsigned wanted = 0;  // operations that need it although no blob shows it yet

  private:
    friend class external_channel;
    thread::runtime& _threads;
    const std::string _id;
    bdev::descriptor _descriptor;
    std::atomic<const bdev::descriptor*> _device{nullptr};  // what new channels open
    std::atomic<uint64_t> _size{0};
    std::string _trouble = "it has not been looked for";
    mutex _changing;
    thread::channel_ref<external_channel> _mine;
    thread::io_device<external_channel> _channels;
};

}  // namespace varve::blob
