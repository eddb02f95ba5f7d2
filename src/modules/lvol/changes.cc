// What changes a volume or store that is there: names, sizes, parents.
#include <fmt/format.h>

#include <algorithm>

#include "modules/lvol/volumes.h"

namespace varve::modules::lvol {

namespace {

// A name replaces all that says what the old one was.
task<> write_name(blob::store& in, blob::blob_ref& b, const std::string& name, const uuid& id) {
    std::vector<std::string> old;
    if (name.size() <= spdk_name_bytes_max) old.emplace_back(long_name_xattr);
    return in.change_xattrs(b, name_xattrs(name, id, false), std::move(old));
}

}  // namespace

// The new alias first: when it can be had nothing but the disk can fail.
task<> volume_store::rename(volume& v, reserved_name name) {
    volume::use works = co_await v.begin_use();
    reserved_name kept = std::move(name);
    auto one = co_await _naming.lock();
    blob::blob_ref b = co_await v.open();
    bdev::registry& devices = _all.devices();
    const std::string before = v.alias(), after = fmt::format("{}/{}", _name, kept.text());
    const bool served = v._device != nullptr;
    if (served) co_await devices.add_alias(*v._device, after);
    result<> outcome = co_await as_result(write_name(*_blobs, b, kept.text(), v._uuid));
    if (v._device != nullptr) {
        if (outcome && !served) outcome = devices.add_alias(*v._device, after);  // it has come meanwhile
        static_cast<void>(devices.remove_alias(*v._device, outcome ? before : after));
    }
    co_await std::move(outcome);
    v._name = kept.text();
    if (v._device == nullptr) co_await as_result(publish(v));  // its name may have been what was wrong
}

task<> volume_store::rename_self(std::string name) {
    if (_trouble.empty()) {
        blob::blob_ref own = co_await _blobs->open(_blobs->super_blob());
        co_await write_name(*_blobs, own, name, _uuid);
    } else {
        const blob::blob_id damaged = _blobs->super_blob();
        co_await make_self(name);
        // If it stays, it is a volume that nobody can open. With clusters it is not what a store's name is in.
        const blob::blob_state* old = _blobs->find(damaged);
        if (old != nullptr && old->record.cluster_count == 0) co_await as_result(_blobs->remove(damaged));
        _trouble.clear();
    }
    _name = std::move(name);
}

task<> volume_store::make_self(std::string name) {
    blob::blob_options own;
    own.xattrs = name_xattrs(name, _uuid, false);
    own.xattrs.insert(own.xattrs.begin(), uuid_xattr(_uuid));
    const blob::blob_id made = co_await _blobs->create(std::move(own));
    auto outcome = co_await as_result(_blobs->set_super_blob(made));
    if (outcome) co_return;
    auto removed = co_await as_result(_blobs->remove(made));  // or it would be a volume named like the store
    if (!removed) set_trouble(adopt(made), "it was to hold the name of its store: " + outcome.error().message());
    co_await std::move(outcome);
}

task<> volume_store::swap_aliases(std::string new_name) {
    auto one = co_await _naming.lock();
    bdev::registry& devices = _all.devices();
    const std::string old_name = _name;
    auto alias = [](const std::string& in, const volume& v) { return fmt::format("{}/{}", in, v.name()); };
    auto each = [&](auto what) {
        result<> outcome;
        for (volume* v : list()) {
            if (v->_device != nullptr && outcome) outcome = what(*v);
        }
        return outcome;
    };
    auto has = [](const volume& v, const std::string& name) {
        return std::ranges::find(v._device->props().aliases, name) != v._device->props().aliases.end();
    };
    auto add = [&](volume& v) -> result<> {
        if (has(v, alias(new_name, v))) return {};
        return devices.add_alias(*v._device, alias(new_name, v));
    };
    result<> outcome = each(add);
    if (outcome) outcome = co_await as_result(rename_self(new_name));
    if (outcome) outcome = each(add);  // those that came meanwhile
    const std::string gone = _name == new_name ? old_name : new_name;
    co_await each([&](volume& v) -> result<> {
        if (!has(v, alias(gone, v))) return {};
        return devices.remove_alias(*v._device, alias(gone, v));
    });
    co_await std::move(outcome);
}

task<> volume_store::resize(volume& v, uint64_t bytes) {
    volume::use works = co_await v.begin_use();
    blob::blob_ref b = co_await v.open();
    const uint64_t size = _blobs->geometry().cluster_size, clusters = bytes / size + (bytes % size != 0);
    if (!b.thin() && clusters > b.clusters()) {
        co_return co_await _all.jobs().run(job_on("resize", v.alias()),
                                           [&](jobs::job& j) { return _blobs->resize(b, clusters, &j); });
    }
    blob::store::remains cut_off;
    co_await _blobs->resize(b, clusters, nullptr, &cut_off);
    co_await release(std::move(cut_off), job_on("resize", v.alias()));
}

task<> volume_store::set_read_only(volume& v) {
    volume::use works = co_await v.begin_use();
    blob::blob_ref b = co_await v.open();
    co_await _blobs->set_read_only(b);
    if (v._device != nullptr) co_await _all.devices().make_read_only(*v._device);
}

task<> volume_store::inflate(volume& v) {
    volume::use works = co_await v.begin_use();
    blob::blob_ref b = co_await v.open();
    jobs::description what{.kind = "inflate", .object = v.alias(), .unit = "clusters", .owner = this};
    co_await _all.jobs().run(std::move(what), [&](jobs::job& j) { return _blobs->inflate(b, j); });
}

task<> volume_store::decouple(volume& v) {
    volume::use works = co_await v.begin_use();
    blob::blob_ref b = co_await v.open();
    jobs::description what{.kind = "decouple", .object = v.alias(), .unit = "clusters", .owner = this};
    co_await _all.jobs().run(std::move(what), [&](jobs::job& j) { return _blobs->decouple(b, j); });
}

task<> volume_store::set_parent(volume& v, volume& parent) {
    volume::use works = co_await v.begin_use(), above = co_await parent.begin_use();
    if (&parent._owner != this) {
        co_await fail(errc::invalid,
                      fmt::format("{} is of another lvstore; use bdev_lvol_set_parent_bdev", parent.alias()));
    }
    blob::blob_ref b = co_await v.open(), its = co_await parent.open();
    co_await _blobs->set_parent(b, its);
    parent._had_clones = true;
}

task<> volume_store::set_parent_bdev(volume& v, bdev::device& parent) {
    volume::use works = co_await v.begin_use();
    if (volume* other = volume::of(&parent); other != nullptr && &other->_owner == this) {
        co_await fail(errc::invalid,
                      fmt::format("{} is of the same lvstore; use bdev_lvol_set_parent", other->alias()));
    }
    blob::blob_ref b = co_await v.open();
    co_await _blobs->set_external_parent(b, external_id_of(parent));
}

task<> volume_store::grow() {
    gate::holder stays = co_await begin();
    co_await _blobs->grow();
}

// --- bdevs outside that clones show

result<bdev::descriptor> volumes::open_external(std::string_view id, bdev::event_handler on_event) {
    auto parsed = id.size() == 37 && id.back() == '\0' ? uuid::parse(id.substr(0, 36)) : std::nullopt;
    if (!parsed) return fail(errc::invalid, "what the clone names is no uuid of a bdev");
    auto opened = _devices->open(parsed->to_string(), bdev::open_mode::read_only, std::move(on_event));
    if (!opened) return opened;
    VARVE_TRY(opened->claim(bdev::claim_type::read_many_write_none, module_name));
    return opened;
}

void volumes::external_lost(std::string_view id) noexcept {
    _log.warning(
        fmt::format("bdev {} has been removed: what its clones have not written cannot be read until it is back",
                    id.substr(0, id.find('\0'))));
}

}  // namespace varve::modules::lvol
