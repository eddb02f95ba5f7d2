#include "bdev/descriptor.h"

#include <fmt/format.h>

#include "bdev/core/device_state.h"

namespace varve::bdev {

std::string_view name_of(claim_type type) noexcept {
    switch (type) {
        case claim_type::none:
            return "not_claimed";
        case claim_type::exclusive_write:
            return "exclusive_write";
        case claim_type::read_many_write_one:
            return "read_many_write_one";
        case claim_type::read_many_write_none:
            return "read_many_write_none";
        case claim_type::read_many_write_shared:
            return "read_many_write_shared";
    }
    return "invalid_claim";
}

device& descriptor::target() const noexcept {
    VARVE_ASSERT(_open != nullptr);
    return _open->of->of;
}

bool descriptor::writable() const noexcept {
    VARVE_ASSERT(_open != nullptr);
    return _open->mode == open_mode::read_write;
}

void descriptor::close() noexcept {
    if (_open == nullptr) return;
    open_record& record = *std::exchange(_open, nullptr);
    record.of->closed(record);
}

channel_ref descriptor::channel() const {
    VARVE_ASSERT(_open != nullptr);
    thread::channel_ref<channel_core> opened = _open->of->channels(writable()).get();
    opened->retain();
    opened->join();
    return channel_ref(*opened, *opened->of);
}

void channel_ref::release() noexcept { _core->release(); }

namespace {

// Why the claim cannot be had, or nothing.
result<> check_claim(device_state& s, open_record& mine, claim_type type, uint64_t shared_key) {
    const std::string& name = s.of.name();
    if (mine.claim != claim_type::none)
        return fail(errc::not_permitted, fmt::format("{} is claimed here already", name));
    if (s.claim != claim_type::none) {
        bool joins = s.claim == type && (type == claim_type::read_many_write_none ||
                                         (type == claim_type::read_many_write_shared && s.claim_key == shared_key));
        if (!joins) {
            return fail(errc::not_permitted, fmt::format("bdev {} already claimed: type {} by module {}", name,
                                                         name_of(s.claim), s.claimed_by));
        }
        return {};
    }
    if ((type == claim_type::read_many_write_shared) != (shared_key != 0)) {
        return fail(errc::invalid, "a shared claim, and only that, has a key that is not 0");
    }
    if (type == claim_type::read_many_write_none && mine.mode == open_mode::read_write) {
        return fail(errc::invalid, "a claim against writing needs a descriptor opened for reading");
    }
    if (type == claim_type::exclusive_write) return {};  // those who write already go on, as with SPDK
    for (open_record& other : s.opens) {
        if (&other != &mine && other.mode == open_mode::read_write) {
            return fail(errc::not_permitted, fmt::format("{} is open for writing", name));
        }
    }
    return {};
}

}  // namespace

result<> descriptor::claim(claim_type type, std::string_view module, uint64_t shared_key) {
    VARVE_ASSERT(_open != nullptr && type != claim_type::none);
    device_state& s = *_open->of;
    VARVE_TRY(check_claim(s, *_open, type, shared_key));
    if (s.claims++ == 0) {
        s.claim = type;
        s.claimed_by = module;
        s.claim_key = shared_key;
    }
    _open->claim = type;
    if (type != claim_type::read_many_write_none) _open->mode = open_mode::read_write;
    return {};
}

void device_state::closed(open_record& record) noexcept {
    if (record.claim != bdev::claim_type::none) {
        record.claim = bdev::claim_type::none;
        if (--claims == 0) {
            claim = bdev::claim_type::none;
            claimed_by.clear();
            claim_key = 0;
        }
    }
    record.unlink();
    if (record.in_handler) {
        record.closed = true;  // tell() deletes it
    } else {
        delete &record;
    }
    if (all_closed && opens.empty()) all_closed.go(_app);
}

void device_state::tell(device_event e) {
    auto kind = static_cast<std::size_t>(e);
    uint64_t number = ++events[kind];
    // A handler may close any descriptor and open others, so the list is walked anew after each.
    for (auto at = opens.begin(); at != opens.end();) {
        open_record& record = *at;
        if (record.told[kind] >= number) {
            ++at;
            continue;
        }
        record.told[kind] = number;
        if (record.on_event) {
            record.in_handler = true;
            record.on_event(e);
            record.in_handler = false;
            if (record.closed) delete &record;
        }
        at = opens.begin();
    }
}

}  // namespace varve::bdev
