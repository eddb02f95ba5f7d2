#include "bdev/layer.h"

namespace varve::bdev {

result<base_link> base_link::open(registry& devices, std::string_view name, std::string_view module) {
    base_link link;
    link._events = std::make_unique<events>();
    auto handle = [e = link._events.get()](device_event what) {
        if (e->above == nullptr) return;
        if (what == device_event::removed) {
            e->above->base_removed();
        } else {
            e->above->base_resized();
        }
    };
    result<descriptor> opened = devices.open(name, open_mode::read_write, handle);
    if (!opened) return fail(std::move(opened).error());
    VARVE_TRY(opened->claim(claim_type::exclusive_write, module));
    link._base = std::move(*opened);
    return link;
}

properties layered_on(const device& base, std::string name, std::string product, uint8_t frames) {
    properties p = base.props();
    p.name = std::move(name);
    p.aliases.clear();
    p.uuid = uuid();
    p.creation_time.clear();
    p.product_name = std::move(product);
    p.preferred_write_alignment = p.preferred_write_granularity = p.optimal_write_size = 0;
    p.preferred_unmap_alignment = p.preferred_unmap_granularity = 0;
    p.passes_on = true;
    p.leaves_memory = false;  // a layer that does nothing with data says so itself
    p.frames = static_cast<uint8_t>(p.frames + 1 + frames);
    return p;
}

uuid layered_uuid(const uuid& base, std::string_view kind) noexcept {
    uint64_t high = 0xcbf29ce484222325, low = 0x84222325cbf29ce4;
    auto mix = [&](uint8_t byte) {
        high = (high ^ byte) * 0x100000001b3;
        low = (low ^ (high >> 32) ^ byte) * 0x9e3779b97f4a7c15;
    };
    for (char c : kind) mix(static_cast<uint8_t>(c));
    for (uint8_t byte : base.bytes) mix(byte);
    return uuid::from_random(high, low);
}

layer::layer(properties p, registry& devices, base_link base)
    : device(std::move(p)), _devices(devices), _link(std::move(base)) {
    _link._events->above = this;
}

// Who has something to write before this goes needs the base for it, until destruct().
void layer::base_removed() {
    _link._last_requests = _devices.keep_serving(*_link._base);
    _devices.background(_devices.remove(name()));
}

task<> layer::reset() { return _devices.reset(*_link._base); }

task<> layer::destruct() {
    _link._events->above = nullptr;
    _link._base.close();
    _link._last_requests = {};
    co_return;
}

void layer::base_resized() { _devices.background(_devices.resize(*this, _link._base->num_blocks())); }

}  // namespace varve::bdev
