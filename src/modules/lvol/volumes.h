// Logical volumes and the stores they lie in. App thread.
//
//   volume& v = *co_await all.find("lvs/name");        by name of the bdev, alias, or uuid
//   volume::use works = co_await v.begin_use();        it and its store stay while this lives
//   blob::blob_ref b = co_await v.open();              for what blob::store does
//
// A method that awaits anything holds a `use` (of the volume) or a gate::holder from volume_store::begin() (of the
// store): without, either may be gone afterwards.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "bdev/registry.h"
#include "blob/store.h"
#include "jobs/registry.h"
#include "modules/lvol/names.h"
#include "util/log.h"
#include "util/uuid.h"

namespace varve::modules::lvol {

class volume_store;
class volumes;

constexpr const char* module_name = "lvol";

class volume {
  public:
    volume(volume_store& owner, blob::blob_id id) : _owner(owner), _id(id) {}
    volume(const volume&) = delete;

    volume_store& owner() const noexcept { return _owner; }
    blob::blob_id id() const noexcept { return _id; }
    const varve::uuid& uuid() const noexcept { return _uuid; }            // nil: SPDK had not given it one
    const std::string& name() const noexcept { return _name; }            // in its store
    const std::string& bdev_name() const noexcept { return _bdev_name; }  // the uuid's text
    std::string alias() const;                                            // "lvs/name"
    bdev::device* device() const noexcept { return _device; }             // null: degraded
    const std::string& trouble() const noexcept { return _trouble; }      // why it has no bdev
    bool is_degraded() const noexcept;                                    // no bdev, or not all it shows can be read
    bool is_snapshot() const noexcept;                                    // it has clones, or had some since the start

    // Counts somebody who works on it.
    class use {
      public:
        use() noexcept = default;
        use(volume& of, gate::holder stays) noexcept : _of(&of), _stays(std::move(stays)) { ++of._uses; }
        use(use&& other) noexcept : _of(std::exchange(other._of, nullptr)), _stays(std::move(other._stays)) {}
        use& operator=(use&& other) noexcept {
            std::swap(_of, other._of);
            std::swap(_stays, other._stays);
            return *this;
        }
        ~use() {
            if (_of != nullptr) --_of->_uses;
        }
        volume& operator*() const noexcept { return *_of; }
        volume* operator->() const noexcept { return _of; }

      private:
        volume* _of = nullptr;
        gate::holder _stays;
    };
    // errc::no_device when its store is being closed; errc::busy when it is being deleted.
    result<use> begin_use();
    // errc::io with the reason when its blob is set aside.
    result<blob::blob_ref> open() const;
    const blob::blob_state* state() const noexcept;

    // The volume a bdev is made of; null when it is no volume.
    static volume* of(bdev::device* d) noexcept;

  private:
    friend class volume_store;
    friend class volumes;
    friend class volume_device;
    volume_store& _owner;
    const blob::blob_id _id;
    varve::uuid _uuid;
    std::string _bdev_name, _name, _trouble;
    bdev::device* _device = nullptr;
    unsigned _uses = 0;
    bool _leaving = false;  // being deleted
    bool _had_clones = false;
};

// A name that nothing else is to get meanwhile.
class reserved_name {
  public:
    using names = std::set<std::string, std::less<>>;
    reserved_name(names& among, std::string name) : _among(&among), _name(std::move(name)) { among.insert(_name); }
    reserved_name(reserved_name&& other) noexcept
        : _among(std::exchange(other._among, nullptr)), _name(std::move(other._name)) {}
    reserved_name& operator=(reserved_name&&) = delete;
    ~reserved_name() {
        if (_among != nullptr) _among->erase(_name);
    }
    const std::string& text() const noexcept { return _name; }

  private:
    names* _among;
    std::string _name;
};

class volume_store {
  public:
    ~volume_store();
    volumes& all() const noexcept { return _all; }
    const varve::uuid& uuid() const noexcept { return _uuid; }
    const std::string& name() const noexcept { return _name; }
    const std::string& base_name() const noexcept { return _base_name; }
    std::string trouble() const;  // what of it cannot be read; empty: nothing
    blob::store& blobs() const noexcept { return *_blobs; }
    std::vector<volume*> list() const;  // in the order of their blobs
    volume* find(std::string_view name) const noexcept;
    volume* find(blob::blob_id id) const noexcept;

    // While the holder lives the store is not closed. errc::no_device when it is being closed.
    result<gate::holder> begin();
    bool closing() const noexcept { return _closing; }

    // For a volume that is to come. errc::invalid; errc::exists: a volume, one under way, or another bdev has it.
    result<reserved_name> reserve(std::string name);

    struct creation {
        uint64_t bytes = 0;  // rounded up to clusters
        bool thin = false;
        blob::format::clear_method clear = blob::format::clear_method::unspecified;
    };
    // Each makes a volume and gives the name of its bdev. What fails leaves nothing. errc::no_space, busy, invalid, io.
    task<std::string> create(reserved_name name, creation how);
    task<std::string> snapshot(reserved_name name, volume& origin, std::vector<blob::format::xattr> more = {});
    task<std::string> clone(reserved_name name, volume& snapshot);
    // A clone of a bdev outside. errc::invalid when its size is no multiple of a cluster's.
    task<std::string> clone_of_bdev(reserved_name name, bdev::device& parent);
    task<> rename(volume& v, reserved_name name);
    // Rounded up to clusters. Whoever has its bdev open is told. What is cut off is cleared as with remove().
    task<> resize(volume& v, uint64_t bytes);
    task<> set_read_only(volume& v);
    task<> inflate(volume& v);
    task<> decouple(volume& v);
    task<> set_parent(volume& v, volume& parent);
    task<> set_parent_bdev(volume& v, bdev::device& parent);
    // Takes all of a base that has become larger.
    task<> grow();
    // errc::busy when somebody works on it; errc::not_permitted when it has more clones than one. Whoever has its bdev
    // open is told, and waited for. What has to be cleared on the device is so afterwards, by a job.
    task<> remove(volume& v);

  private:
    friend class volume;
    friend class volumes;
    struct base_events {
        volume_store* above = nullptr;  // once there is one
        bool gone = false;
    };
    volume_store(volumes& all, std::unique_ptr<base_events> events, std::unique_ptr<blob::store> blobs);

    volume& adopt(blob::blob_id id);
    task<std::string> bring(task<blob::blob_id> making);
    // As jobs: making and growing thick volumes, clearing and freeing what volumes had.
    task<blob::blob_id> make_blob(blob::blob_options options, std::string alias);
    task<> make_thick(blob::blob_options options, blob::blob_id& made, jobs::job& progress);
    task<> release(blob::store::remains left, jobs::description what);
    jobs::description job_on(std::string kind, std::string object) const;
    std::vector<blob::format::xattr> xattrs_of(const reserved_name& name, const varve::uuid& id) const;
    // Gives it a bdev.
    task<> publish(volume& v);
    task<> withdraw(volume& v);
    void set_trouble(volume& v, std::string why);
    task<> rename_self(std::string name);
    task<> make_self(std::string name);  // the blob with its name and uuid
    task<> swap_aliases(std::string new_name);
    // A bdev has appeared: volumes that wait for it as their external parent get theirs.
    task<> attach_external(std::string id);

    volumes& _all;
    std::unique_ptr<base_events> _events;
    std::unique_ptr<blob::store> _blobs;
    varve::uuid _uuid;
    std::string _name, _base_name, _trouble;
    std::map<blob::blob_id, std::unique_ptr<volume>> _volumes;
    reserved_name::names _coming;  // names of volumes under way
    mutex _naming;                 // one renames at a time
    bool _closing = false;
    gate::holder _last_requests;  // of a base that is going
    gate _users;
};

// All stores of one system.
class volumes final : private blob::external_devices {
  public:
    volumes(logger& out, jobs::registry& long_ones) : _log(out), _jobs(long_ones) {}
    void attach(bdev::registry& devices);
    // Closes all stores and takes no new ones.
    task<> stop();

    bdev::registry& devices() const noexcept { return *_devices; }
    logger& out() const noexcept { return _log; }
    // Where inflating, copying and checking are listed, with the store as their owner: they end before it is closed.
    jobs::registry& jobs() const noexcept { return _jobs; }

    std::vector<volume_store*> stores() const;
    volume_store* find_store(std::string_view name) const noexcept;
    volume_store* find_store(const uuid& id) const noexcept;
    // As SPDK's methods take it: one of both. errc::invalid when it is none or two; errc::no_device.
    result<volume_store*> store(const std::optional<std::string>& uuid_text,
                                const std::optional<std::string>& name) const;
    // By bdev name, alias or uuid, also those that are degraded. errc::no_device.
    result<volume*> find(std::string_view name) const;
    // The same, for those that have a bdev.
    result<volume*> find_served(std::string_view name) const;

    struct store_creation {
        std::string bdev_name, name;
        blob::init_options options;
        enum class clearing : uint8_t { unmap, write_zeroes, none } clear = clearing::unmap;
    };
    // Gives the store's uuid. What was on the bdev is gone. errc::exists (name), no_device, not_permitted (claimed),
    // invalid, no_space, no_memory.
    task<uuid> create_store(store_creation how);
    // Its volumes, too.
    task<> destroy_store(volume_store& s);
    // errc::exists.
    task<> rename_store(volume_store& s, std::string name);
    // Opens the store that lies on a bdev, under another name if one is given; that is written when nothing else can
    // fail. errc::bad_sequence: there is none; errc::exists: its name or uuid is in use.
    task<uuid> import(std::string bdev_name, std::optional<std::string> name = {});

  private:
    friend class volume_store;
    enum class ending : uint8_t { unload, abandon, destroy };
    task<> examine(bdev::device& d);
    struct base;
    result<base> open_base(std::string_view name);
    task<> prepare(volume_store& s, store_creation::clearing how);
    std::string place(std::string_view base) const;
    result<> check_free(const uuid& id, std::string_view name, std::string_view base) const;
    static result<> identify(volume_store& s);
    task<> name_and_check(volume_store& s, const std::optional<std::string>& name,
                          std::vector<reserved_name>& reserved);
    result<bdev::descriptor> open_external(std::string_view id, bdev::event_handler on_event) override;
    void external_lost(std::string_view id) noexcept override;
    volume_store& keep(std::unique_ptr<volume_store> s);
    void base_removed(volume_store& s);
    task<> close(volume_store& s, ending how);
    task<> end(volume_store& s, ending how);
    static task<> try_to_unmap(blob::store& b, jobs::job& progress);
    task<> give_back(std::unique_ptr<volume_store> deleted);
    task<> unmap_all(std::unique_ptr<volume_store> deleted, jobs::job& progress);
    task<> close_stores();
    bool is_below_another(const volume_store& s) const;

    logger& _log;
    jobs::registry& _jobs;
    bdev::registry* _devices = nullptr;
    std::vector<std::unique_ptr<volume_store>> _stores;  // in the order in which they were opened
    reserved_name::names _coming;                        // names and uuids of stores under way
    bool _stopped = false;
    gate _openings;
    event _one_closed;
};

}  // namespace varve::modules::lvol
