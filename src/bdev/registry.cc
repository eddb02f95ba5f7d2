#include "bdev/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <ranges>

#include "bdev/core/device_state.h"
#include "env/system.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::bdev {

// Someone who waits for a device to appear, for a while.
struct registry::waiting : list_node<>, work {
    explicit waiting(std::string_view n) noexcept : name(n), timeout(*this) {
        run = [](work& w) noexcept { std::exchange(static_cast<waiting&>(w).waiter, {}).resume(); };
    }
    void wake() noexcept {
        unlink();
        timeout.cancel();
        thread::thread::current()->defer(*this);
    }
    std::string_view name;
    thread::timer timeout;
    std::coroutine_handle<> waiter;
};

struct registry::index {
    std::map<std::string, device*, std::less<>> names;
    std::vector<std::unique_ptr<device>> owned;  // in the order of _devices, then those being removed
    std::vector<std::pair<std::string, examiner>> examiners;
    std::vector<std::string> asked_for;  // to be examined, though not everything is
    list<waiting> for_a_name;
    list<waiting> for_examination;
    unsigned examinations = 0;
    gate tasks;
    event one_gone;  // pulsed
};

registry::registry(thread::runtime& threads) : _threads(threads), _index(std::make_unique<index>()) {}
registry::~registry() { VARVE_ASSERT(_index->owned.empty()); }

env::system& registry::world() const noexcept { return _threads.world(); }

result<> registry::check(const device& d) const {
    const properties& p = d.props();
    if (p.name.empty()) return fail(errc::invalid, "a bdev's name must not be empty");
    if (p.block_size == 0) return fail(errc::invalid, fmt::format("{}: block_size must not be 0", p.name));
    uint64_t bytes = 0;
    if (!checked_multiply(p.num_blocks, p.block_size, bytes) || bytes > INT64_MAX) {
        return fail(errc::invalid,
                    fmt::format("{}: {} blocks of {} bytes are too many", p.name, p.num_blocks, p.block_size));
    }
    if (!is_power_of_two(p.alignment) || (p.split_on_boundary && !is_power_of_two(p.optimal_io_boundary))) {
        return fail(errc::invalid, fmt::format("{}: alignment and boundary must be powers of two", p.name));
    }
    // One frame is the issuer's.
    if (p.frames + 1 > max_frames) {
        return fail(errc::invalid, fmt::format("{}: too many layers: a request would need {} frames, of {} there are",
                                               p.name, p.frames + 1, max_frames));
    }
    return {};
}

result<> registry::reserve_names(device& d) {
    properties& p = d._properties;
    if (p.uuid.is_nil()) p.uuid = world().make_uuid();
    std::vector<std::string> names{p.name};
    names.insert(names.end(), p.aliases.begin(), p.aliases.end());
    std::string uuid_text = p.uuid.to_string();
    if (std::ranges::find(names, uuid_text) == names.end()) {
        names.push_back(uuid_text);
        p.aliases.push_back(uuid_text);
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (_index->names.try_emplace(names[i], &d).second) continue;
        for (std::size_t j = 0; j < i; ++j) _index->names.erase(names[j]);
        return fail(errc::exists, fmt::format("bdev name {} already exists", names[i]));
    }
    return {};
}

void registry::free_names(device& d) noexcept {
    std::erase_if(_index->names, [&](const auto& entry) { return entry.second == &d; });
}

task<std::string> registry::add(std::unique_ptr<device> d) {
    device& added = *d;
    co_await check(added);
    co_await reserve_names(added);
    added._state = std::make_unique<device_state>(added, *this);
    _index->owned.push_back(std::move(d));
    _devices.push_back(&added);
    std::string name = added.name();
    for (auto at = _index->for_a_name.begin(); at != _index->for_a_name.end();) {
        waiting& w = *at++;
        if (find(w.name) == &added) w.wake();
    }
    if (_observer) _observer(true, name);
    const bool asked = std::ranges::any_of(_index->asked_for, [&](const auto& n) { return find(n) == &added; });
    if (_auto_examine || asked) background(look_at(added));
    co_return name;
}

void registry::background(task<> t) {
    _index->tasks.spawn(std::move(t), [](const error&) {});
}

// An examiner's error says that the device is none of its own; it has logged what is worth it.
task<> registry::look_at(device& d) {
    device_state& s = *d._state;
    gate::holder stays = s.tasks.enter();
    ++_index->examinations;
    for (std::size_t i = 0; i < _index->examiners.size() && !s.removing; ++i) {
        co_await as_result(_index->examiners[i].second(d));
        if (s.claim == claim_type::exclusive_write) break;
    }
    if (--_index->examinations == 0) {
        while (!_index->for_examination.empty()) _index->for_examination.front().wake();
    }
}

void registry::add_examiner(std::string name, examiner look) {
    _index->examiners.emplace_back(std::move(name), std::move(look));
}

task<> registry::examine(std::string name) {
    if (_auto_examine) co_await fail(errc::invalid, "manual examination is not allowed while it is automatic");
    std::vector<std::string>& asked = _index->asked_for;
    if (std::ranges::find(asked, name) != asked.end()) {
        co_await fail(errc::exists, fmt::format("bdev {} was to be examined already", name));
    }
    device* d = find(name);
    asked.push_back(std::move(name));
    if (d != nullptr) background(look_at(*d));
}

const std::vector<std::string>& registry::to_examine() const noexcept { return _index->asked_for; }

namespace {
// co_await one of these: suspends until wake().
template <class Waiting>
struct asleep {
    list<Waiting>& among;
    Waiting& me;
    time_ns timeout;  // negative: none
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        me.waiter = waiter;
        among.push_back(me);
        if (timeout >= 0) me.timeout.start(timeout);
    }
    void await_resume() const noexcept {}
};
}  // namespace

task<> registry::wait_for_examine() {
    while (_index->examinations != 0) {
        waiting me({});
        co_await asleep<waiting>{_index->for_examination, me, -1};
    }
}

device* registry::find(std::string_view name) const noexcept {
    auto at = _index->names.find(name);
    return at == _index->names.end() || at->second->_state->removing ? nullptr : at->second;
}

result<descriptor> registry::open(std::string_view name, open_mode mode, event_handler on_event) {
    device* d = find(name);
    if (d == nullptr) return fail(errc::no_device, fmt::format("bdev {} does not exist", name));
    device_state& s = *d->_state;
    if (mode == open_mode::read_write) {
        if (s.claim != claim_type::none) {
            return fail(errc::not_permitted, fmt::format("bdev {} already claimed: type {} by module {}", d->name(),
                                                         name_of(s.claim), s.claimed_by));
        }
    }
    auto* record = new open_record;
    record->of = &s;
    record->mode = mode;
    record->on_event = std::move(on_event);
    record->told = s.events;
    s.opens.push_back(*record);
    return descriptor(*record);
}

task<descriptor> registry::open_later(std::string name, open_mode mode, event_handler on_event, time_ns timeout) {
    if (find(name) == nullptr) {
        waiting me(name);
        co_await asleep<waiting>{_index->for_a_name, me, timeout};
        if (find(name) == nullptr) {
            co_await fail(errc::timed_out,
                          fmt::format("no bdev {} appeared within {} ms", name, timeout / milliseconds));
        }
    }
    co_return open(name, mode, std::move(on_event));
}

task<> registry::remove(std::string name, std::string module) {
    device* d = find(name);
    if (d == nullptr) co_await fail(errc::no_device, fmt::format("bdev {} does not exist", name));
    if (!module.empty() && d->module_name() != module) {
        co_await fail(errc::no_device, fmt::format("bdev {} is of module {}, not {}", name, d->module_name(), module));
    }
    device_state& s = *d->_state;
    std::erase_if(_index->asked_for, [&](const auto& n) { return find(n) == d; });
    s.removing = true;
    co_await yield();  // handlers do not run inside the call of their owner
    s.tell(device_event::removed);
    co_await s.last_requests.close();
    co_await s.visit([](channel_core& c) { c.removed(); });
    co_await s.all_closed.until([&s] { return s.opens.empty(); });
    s.sampling.reset();
    co_await s.writers.closed();
    co_await s.readers.closed();
    co_await s.tasks.close();
    result<> outcome = co_await as_result(d->destruct());
    free_names(*d);
    d->_state.reset();
    std::erase(_devices, d);
    if (_observer) _observer(false, d->name());
    std::erase_if(_index->owned, [&](const auto& owned) { return owned.get() == d; });
    _index->one_gone.pulse();
    co_await std::move(outcome);
}

gate::holder registry::keep_serving(device& d) noexcept { return d._state->last_requests.enter(); }

task<> registry::remove_all() {
    co_await _index->tasks.close();
    while (!_devices.empty()) {
        auto last =
            std::ranges::find_if(_devices | std::views::reverse, [](device* d) { return !d->_state->removing; });
        if (last == _devices.rend()) {
            co_await _index->one_gone.wait();  // somebody else is at it
        } else {
            co_await as_result(remove((*last)->name()));
        }
    }
}

task<> registry::resize(device& d, uint64_t num_blocks) {
    properties& p = d._properties;
    uint64_t bytes = 0;
    if (!checked_multiply(num_blocks, p.block_size, bytes) || bytes > INT64_MAX) {
        co_await fail(errc::invalid,
                      fmt::format("{}: {} blocks of {} bytes are too many", p.name, num_blocks, p.block_size));
    }
    if (p.num_blocks == num_blocks) co_return;
    device_state& s = *d._state;
    gate::holder stays = s.tasks.enter();
    if (!stays) co_await fail(errc::no_device, fmt::format("bdev {} is being removed", p.name));
    bool shrinks = num_blocks < p.num_blocks;
    if (shrinks) co_await s.freeze();  // what was let in before the change ends before it
    p.num_blocks = num_blocks;
    co_await s.visit([num_blocks](channel_core& c) { c.set_num_blocks(num_blocks); });
    if (shrinks) s.thaw();
    s.tell(device_event::resized);
}

task<> registry::make_read_only(device& d) {
    device_state& s = *d._state;
    gate::holder stays = s.tasks.enter();
    if (!stays) co_await fail(errc::no_device, fmt::format("bdev {} is being removed", d.name()));
    co_await s.freeze();
    std::atomic_ref(d._properties.read_only).store(true, std::memory_order_relaxed);
    s.thaw();  // every channel looks again at what it may let through
}

registry::frozen::~frozen() {
    if (_device != nullptr) _device->_state->thaw();
}

task<registry::frozen> registry::freeze(device& d) {
    device_state& s = *d._state;
    gate::holder stays = s.tasks.enter();
    if (!stays) co_await fail(errc::no_device, fmt::format("bdev {} is being removed", d.name()));
    co_await s.freeze();
    co_return frozen(d, std::move(stays));
}

task<> registry::drain(device& d) {
    device_state& s = *d._state;
    gate::holder stays = s.tasks.enter();
    if (!stays) co_await fail(errc::no_device, fmt::format("bdev {} is being removed", d.name()));
    const uint64_t nothing = co_await s.lock({UINT64_MAX, 0});  // overlaps no range
    s.unlock(nothing);
}

task<> registry::reset(device& d) {
    device_state& s = *d._state;
    gate::holder stays = s.tasks.enter();
    if (!stays) co_await fail(errc::no_device, fmt::format("bdev {} is being removed", d.name()));
    co_await s.reset();
}

task<> registry::visit_channels(device& d, std::move_only_function<void(channel&)> f) {
    device_state& s = *d._state;
    gate::holder stays = s.tasks.enter();
    if (!stays) co_await fail(errc::no_device, fmt::format("bdev {} is being removed", d.name()));
    co_await s.look_around([&f](channel_core& c) { f(*c.of); });
}

result<> registry::add_alias(device& d, std::string alias) {
    if (alias.empty()) return fail(errc::invalid, "an alias must not be empty");
    if (!_index->names.try_emplace(alias, &d).second) {
        return fail(errc::exists, fmt::format("bdev name {} already exists", alias));
    }
    d._properties.aliases.push_back(std::move(alias));
    return {};
}

result<> registry::remove_alias(device& d, std::string_view alias) {
    auto at = std::ranges::find(d._properties.aliases, alias);
    if (at == d._properties.aliases.end())
        return fail(errc::not_found, fmt::format("{} has no alias {}", d.name(), alias));
    _index->names.erase(_index->names.find(alias));
    d._properties.aliases.erase(at);
    return {};
}

}  // namespace varve::bdev
