// Clones of devices outside of the store.
#include <fmt/format.h>

#include <algorithm>

#include "blob/store.h"
#include "thread/runtime.h"

namespace varve::blob {

namespace {

// The one that shows below all snapshots; null when there is none.
external_parent* at_the_bottom(const blob_state& b) noexcept {
    const blob_state* at = &b;
    while (at->parent != nullptr) at = at->parent;
    return at->current->external;
}

}  // namespace

std::string blob_ref::external_id() const {
    return is_external_clone() ? _blob->current->external->id() : std::string();
}

bool blob_ref::degraded() const noexcept {
    const external_parent* p = at_the_bottom(*_blob);
    return p != nullptr && !p->attached();
}

std::string blob_ref::degraded_reason() const {
    const external_parent* p = at_the_bottom(*_blob);
    return p == nullptr || p->attached() ? std::string() : p->trouble();
}

std::vector<bdev::device*> blob_ref::lower_devices() const { return _blob->owner.lower_devices(); }

std::vector<bdev::device*> store::lower_devices() const {
    std::vector<bdev::device*> all{&_disk.device()};
    for (const auto& [id, p] : _outside) {
        if (p->attached()) all.push_back(p->device());
    }
    return all;
}

external_parent& store::external(const std::string& id) {
    auto& at = _outside[id];
    if (!at) at = std::make_unique<external_parent>(_devices.threads(), id);
    return *at;
}

task<> store::open_external(external_parent& p) {
    if (p.attached()) co_return;
    if (_externals == nullptr) co_await fail(errc::unsupported, "the store was opened without external snapshots");
    bdev::descriptor d = co_await _externals->open_external(p.id(), [this, &p](bdev::device_event e) {
        if (e == bdev::device_event::resized) return p.resized();
        background(lose_external(p));
    });
    co_await external_parent::check(*d, _super.layout.io_unit_size);
    if (bdev::lies_on(*d, _disk.device())) {
        co_await fail(errc::invalid, fmt::format("{} lies on {}, and so do the blobs that would show it: reading them "
                                                 "might never end",
                                                 d->name(), _disk.device().name()));
    }
    co_await p.attach(std::move(d));
}

task<> store::lose_external(external_parent& p) {
    co_await p.detach("it has been removed");
    if (_externals != nullptr) _externals->external_lost(p.id());
}

task<> store::open_externals() {
    for (auto& [id, p] : _outside) {
        if (!shows(*p)) continue;
        auto outcome = co_await as_result(open_external(*p));
        if (!outcome) p->set_trouble(outcome.error().message());
    }
}

task<> store::end_externals() {
    for (auto& [id, p] : _outside) co_await p->end();
}

void store::let_go_of_externals() {
    for (auto& [id, p] : _outside) {
        if (p->attached()) background(let_go_when_unused(*p));
    }
}

bool store::shows(const external_parent& p) const noexcept {
    return std::ranges::any_of(_blobs, [&](const auto& entry) {
        const blob_state& b = *entry.second;
        return !b.set_aside() && b.current->external == &p;
    });
}

task<> store::let_go_when_unused(external_parent& p) {
    if (shows(p)) co_return;
    // Threads may still be at a layout in which it shows.
    co_await _devices.threads().for_each_thread([](thread::thread&) {});
    co_await p.detach("no blob shows it", [this, &p] { return !shows(p) && p.wanted == 0; });
}

std::vector<blob_id> store::blobs_on_external(std::string_view id) const {
    std::vector<blob_id> found;
    for (const auto& [number, b] : _blobs) {
        if (b->hidden || b->set_aside()) continue;
        const external_parent* p = at_the_bottom(*b);
        if (p != nullptr && p->id() == id) found.push_back(number);
    }
    return found;
}

task<> store::attach_external(std::string id) {
    auto found = _outside.find(id);
    if (found == _outside.end() || !shows(*found->second)) {
        co_await fail(errc::not_found, "no blob is a clone of this external snapshot");
    }
    external_parent& p = *found->second;
    result<> outcome = co_await as_result(open_external(p));
    if (!outcome) p.set_trouble(outcome.error().message());
    co_await std::move(outcome);
}

task<> store::set_external_parent(blob_ref& ref, std::string id) {
    blob_state& b = ref.state();
    operation mine = co_await begin_on(b);
    if (!b.record.may_be_changed()) co_await fail(errc::not_permitted, "it has features unknown here");
    if (!b.thin()) co_await fail(errc::invalid, fmt::format("blob 0x{:x} is not thin", b.id));
    if (id.empty() || id.size() > external_parent::id_max) co_await fail(errc::invalid, "not the id of a device");
    external_parent& p = external(id);
    if (b.current->external == &p) co_await fail(errc::exists, "it is its parent already");
    keeping keep(*this, p);
    co_await open_external(p);
    if (p.size() % _super.layout.cluster_size != 0) {
        let_go_of_externals();
        co_await fail(errc::invalid,
                      fmt::format("the size of the device, {}, is not a multiple of the cluster size, {}", p.size(),
                                  _super.layout.cluster_size));
    }
    co_await reparent(b, nullptr, &p);
}

}  // namespace varve::blob
