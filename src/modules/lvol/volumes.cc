// Volumes of one store: how they come, are found, get a bdev, and go.
#include "modules/lvol/volumes.h"

#include <fmt/format.h>

#include "env/system.h"
#include "modules/lvol/device.h"

namespace varve::modules::lvol {

// --- one volume

std::string volume::alias() const { return fmt::format("{}/{}", _owner.name(), _name); }
const blob::blob_state* volume::state() const noexcept { return _owner.blobs().find(_id); }
bool volume::is_snapshot() const noexcept { return _had_clones || !state()->clones.empty(); }
bool volume::is_degraded() const noexcept {
    if (_device == nullptr) return true;
    result<blob::blob_ref> b = open();
    return !b || b->degraded();
}
result<blob::blob_ref> volume::open() const { return _owner.blobs().open(_id); }

result<volume::use> volume::begin_use() {
    auto stays = _owner.begin();
    if (!stays) return fail(std::move(stays).error());
    if (_leaving) return fail(errc::busy, fmt::format("{} is being deleted", alias()));
    return use(*this, std::move(*stays));
}

volume* volume::of(bdev::device* d) noexcept {
    if (d == nullptr || d->module_name() != module_name) return nullptr;
    return &static_cast<volume_device*>(d)->of();
}

// --- those of a store

volume_store::volume_store(volumes& all, std::unique_ptr<base_events> events, std::unique_ptr<blob::store> blobs)
    : _all(all), _events(std::move(events)), _blobs(std::move(blobs)), _base_name(_blobs->base().device().name()) {}
volume_store::~volume_store() = default;

result<gate::holder> volume_store::begin() {
    if (gate::holder stays = _users.enter()) return stays;
    return fail(errc::no_device, fmt::format("lvstore {} is being closed", _name));
}

std::vector<volume*> volume_store::list() const {
    std::vector<volume*> all;
    for (const auto& [id, v] : _volumes) all.push_back(v.get());
    return all;
}

std::string volume_store::trouble() const {
    const std::string blobs = _blobs->trouble();
    return _trouble + (_trouble.empty() || blobs.empty() ? "" : "; ") + blobs;
}

volume* volume_store::find(std::string_view name) const noexcept {
    for (const auto& [id, v] : _volumes) {
        if (v->_name == name) return v.get();
    }
    return nullptr;
}

volume* volume_store::find(blob::blob_id id) const noexcept {
    auto found = _volumes.find(id);
    return found == _volumes.end() ? nullptr : found->second.get();
}

result<reserved_name> volume_store::reserve(std::string name) {
    VARVE_TRY(check_name("lvol name", name));
    if (find(name) != nullptr) return fail(errc::exists, fmt::format("lvol {}/{}", _name, name));
    if (_coming.contains(name)) return fail(errc::exists, fmt::format("lvol {}/{} is being made", _name, name));
    std::string alias = fmt::format("{}/{}", _name, name);
    if (_all.devices().find(alias) != nullptr) return fail(errc::exists, fmt::format("bdev name {}", alias));
    return reserved_name(_coming, std::move(name));
}

// --- coming

volume& volume_store::adopt(blob::blob_id id) {
    auto made = std::make_unique<volume>(*this, id);
    const blob::format::xattr_map& xattrs = _blobs->find(id)->record.xattrs;
    made->_uuid = uuid_in(xattrs);
    made->_bdev_name = made->_uuid.is_nil() ? fmt::format("{}_{}", _uuid.to_string(), id) : made->_uuid.to_string();
    made->_name = name_in(xattrs);
    if (made->_name.empty()) made->_name = fmt::format("blob_{:x}", id);
    made->_had_clones = made->is_snapshot();
    return *_volumes.emplace(id, std::move(made)).first->second;
}

void volume_store::set_trouble(volume& v, std::string why) {
    _all.out().error(fmt::format("lvol {} ({}) has no bdev: {}", v.alias(), v.bdev_name(), why));
    v._trouble = std::move(why);
}

task<> volume_store::publish(volume& v) {
    v._trouble.clear();
    result<blob::blob_ref> b = v.open();
    if (!b) {
        set_trouble(v, b.error().message());
        co_await fail(std::move(b).error());
    }
    if (b->degraded()) {
        set_trouble(v, fmt::format("the bdev outside that it is a clone of cannot be had: {}", b->degraded_reason()));
        co_await fail(errc::no_device, v._trouble);
    }
    auto made = std::make_unique<volume_device>(v, std::move(*b));
    volume_device* d = made.get();
    auto outcome = co_await as_result(_all.devices().add(std::move(made)));
    if (!outcome) {
        set_trouble(v, outcome.error().message());
        co_await fail(std::move(outcome).error());
    }
    d->serve();
    v._device = d;
}

task<> volume_store::withdraw(volume& v) {
    if (v._device != nullptr) co_await _all.devices().remove(v._bdev_name, module_name);
}

std::vector<blob::format::xattr> volume_store::xattrs_of(const reserved_name& name, const varve::uuid& id) const {
    std::vector<blob::format::xattr> out = name_xattrs(name.text(), id, true);
    out.insert(out.begin() + 1, uuid_xattr(id));
    out.push_back(creation_xattr_at(_all.devices().world().wall_clock_ns()));
    return out;
}

task<std::string> volume_store::bring(task<blob::blob_id> making) {
    const blob::blob_id id = co_await std::move(making);
    volume& v = adopt(id);
    auto outcome = co_await as_result(publish(v));
    if (!outcome) {
        v._leaving = true;
        auto removed = co_await as_result(_blobs->remove(id));
        v._leaving = false;
        if (removed) {
            _volumes.erase(id);
        } else {  // it is there, and so is its name
            set_trouble(v, fmt::format("{}; and it could not be removed: {}", outcome.error().message(),
                                       removed.error().message()));
        }
        co_await std::move(outcome);
    }
    co_return v.bdev_name();
}

jobs::description volume_store::job_on(std::string kind, std::string object) const {
    return {.kind = std::move(kind), .object = std::move(object), .unit = "clusters", .owner = this, .everyday = true};
}

task<> volume_store::make_thick(blob::blob_options options, blob::blob_id& made, jobs::job& progress) {
    made = co_await _blobs->create(std::move(options), &progress);
}

task<blob::blob_id> volume_store::make_blob(blob::blob_options options, std::string alias) {
    if (options.thin) co_return co_await _blobs->create(std::move(options));
    blob::blob_id made = blob::format::no_blob;
    co_await _all.jobs().run(job_on("create", std::move(alias)),
                             [&](jobs::job& j) { return make_thick(std::move(options), made, j); });
    co_return made;
}

// What was reserved is given up before the store may go: `kept` is younger than what keeps the store.
task<std::string> volume_store::create(reserved_name name, creation how) {
    gate::holder stays = co_await begin();
    reserved_name kept = std::move(name);
    const uint64_t size = _blobs->geometry().cluster_size;
    blob::blob_options options{.clusters = how.bytes / size + (how.bytes % size != 0),
                               .thin = how.thin,
                               .clear = how.clear,
                               .xattrs = xattrs_of(kept, _all.devices().world().make_uuid())};
    co_return co_await bring(make_blob(std::move(options), fmt::format("{}/{}", _name, kept.text())));
}

task<std::string> volume_store::snapshot(reserved_name name, volume& origin, std::vector<blob::format::xattr> more) {
    volume::use works = co_await origin.begin_use();
    reserved_name kept = std::move(name);
    blob::blob_ref b = co_await origin.open();
    auto xattrs = xattrs_of(kept, _all.devices().world().make_uuid());
    xattrs.insert(xattrs.end(), more.begin(), more.end());
    co_return co_await bring(_blobs->snapshot(b, std::move(xattrs)));
}

task<std::string> volume_store::clone(reserved_name name, volume& snapshot) {
    volume::use works = co_await snapshot.begin_use();
    reserved_name kept = std::move(name);
    blob::blob_ref b = co_await snapshot.open();
    auto xattrs = xattrs_of(kept, _all.devices().world().make_uuid());
    std::string made = co_await bring(_blobs->clone(b, std::move(xattrs)));
    snapshot._had_clones = true;
    co_return made;
}

task<std::string> volume_store::clone_of_bdev(reserved_name name, bdev::device& parent) {
    gate::holder stays = co_await begin();
    reserved_name kept = std::move(name);
    const uint64_t size = _blobs->geometry().cluster_size, bytes = parent.num_blocks() * parent.block_size();
    if (bytes % size != 0) {
        co_await fail(errc::invalid, fmt::format("the size of bdev {}, {}, is no multiple of the cluster size, {}",
                                                 parent.name(), bytes, size));
    }
    blob::blob_options options{.clusters = bytes / size,
                               .thin = true,
                               .xattrs = xattrs_of(kept, _all.devices().world().make_uuid()),
                               .external = external_id_of(parent)};
    co_return co_await bring(_blobs->create(std::move(options)));
}

// Snapshots share what is below them; those that waited for the same bdev get theirs one after another.
task<> volume_store::attach_external(std::string id) {
    gate::holder stays = co_await begin();
    if (_blobs->blobs_on_external(id).empty()) co_return;
    auto outcome = co_await as_result(_blobs->attach_external(id));  // publish() tells of it
    for (blob::blob_id each : _blobs->blobs_on_external(id)) {
        volume* v = find(each);
        if (v != nullptr && v->_device == nullptr && !v->_leaving) co_await as_result(publish(*v));
    }
    co_await std::move(outcome);
}

// --- going

task<> volume_store::remove(volume& v) {
    gate::holder stays = co_await begin();
    if (v._leaving) co_await fail(errc::busy, fmt::format("{} is being deleted", v.alias()));
    if (v._uses != 0) co_await fail(errc::busy, fmt::format("another operation works on {}", v.alias()));
    if (std::size_t clones = v.state()->clones.size(); clones > 1) {
        co_await fail(errc::not_permitted, fmt::format("{} has {} clones", v.alias(), clones));
    }
    // A snapshot's clone takes over what it has: the clone's bdev must not go meanwhile.
    std::optional<volume::use> heir;
    if (const auto& clones = v.state()->clones; !clones.empty()) {
        const blob::blob_state& only = *clones.front();
        if (only.set_aside()) {  // before the bdev goes
            co_await fail(errc::busy, fmt::format("{} is needed by its clone, blob 0x{:x}, which is set aside: {}",
                                                  v.alias(), only.id, only.damage));
        }
        if (volume* clone = find(clones.front()->id)) heir.emplace(co_await clone->begin_use());
    }
    v._leaving = true;
    blob::store::remains left;
    result<> outcome = co_await as_result(withdraw(v));
    if (outcome) outcome = co_await as_result(_blobs->remove(v._id, &left));
    if (outcome) {
        jobs::description job = job_on("delete", v.alias());
        _volumes.erase(v._id);
        co_return co_await release(std::move(left), std::move(job));
    }
    v._leaving = false;
    if (v._device == nullptr && !_closing) co_await as_result(publish(v));
    co_await std::move(outcome);
}

// It is no volume's any more. Freeing takes no time worth telling of, so that who deletes one can make another;
// clearing does.
task<> volume_store::release(blob::store::remains left, jobs::description what) {
    if (!left) co_return;
    const bool long_one = left.must_be_cleared();
    what.everyday = !long_one;
    auto work = [this, mine = std::move(left)](jobs::job& j) mutable { return _blobs->release(std::move(mine), j); };
    if (long_one) {
        static_cast<void>(_all.jobs().start(std::move(what), std::move(work)));
    } else {
        co_await as_result(_all.jobs().run(std::move(what), std::move(work)));
    }
}

}  // namespace varve::modules::lvol
