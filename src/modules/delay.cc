#include "modules/delay.h"

#include <array>
#include <atomic>

#include "bdev/layer_module.h"
#include "env/system.h"

namespace varve::modules {

namespace {

using namespace bdev;

enum class latency_type : uint8_t { avg_read, p99_read, avg_write, p99_write };
constexpr std::size_t latency_types = 4;

constexpr auto names_of(latency_type) {
    return std::to_array<rpc::named<latency_type>>({{"avg_read", latency_type::avg_read},
                                                    {"p99_read", latency_type::p99_read},
                                                    {"avg_write", latency_type::avg_write},
                                                    {"p99_write", latency_type::p99_write}});
}

constexpr auto microseconds_allowed = rpc::range<0, 1'000'000'000'000>;

struct create_params {
    std::string name, base_bdev_name;
    uint64_t avg_read_latency = 0, p99_read_latency = 0, avg_write_latency = 0, p99_write_latency = 0;
    std::optional<uuid> id;
    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::name, "name", "Name of the new bdev"),
        rpc::required(&create_params::base_bdev_name, "base_bdev_name", "Name of the bdev below"),
        rpc::required(&create_params::avg_read_latency, "avg_read_latency", "Microseconds added to 99 reads in 100",
                      microseconds_allowed),
        rpc::required(&create_params::p99_read_latency, "p99_read_latency",
                      "Microseconds added to the others, not less", microseconds_allowed),
        rpc::required(&create_params::avg_write_latency, "avg_write_latency", "Microseconds added to 99 writes in 100",
                      microseconds_allowed),
        rpc::required(&create_params::p99_write_latency, "p99_write_latency",
                      "Microseconds added to the others, not less", microseconds_allowed),
        rpc::optional(&create_params::id, "uuid", "UUID of the new bdev; made from the base's when not given")};

    uint64_t& of(latency_type t) noexcept {
        uint64_t create_params::* const all[] = {&create_params::avg_read_latency, &create_params::p99_read_latency,
                                                 &create_params::avg_write_latency, &create_params::p99_write_latency};
        return this->*all[static_cast<unsigned>(t)];
    }
};

// Written on the app thread, read by channels for each request.
using latencies = std::array<std::atomic<time_ns>, latency_types>;

class delay_channel final : public channel {
  public:
    delay_channel(channel_ref base, const latencies& added, uint64_t seed)
        : _base(std::move(base)), _added(added), _dice(seed | 1) {
        for (line& l : _lines) l.of = this;
    }

  private:
    // A request on its way through this channel.
    struct passage : list_node<> {
        delay_channel* of = nullptr;
        io* request = nullptr;
        passage* next_free = nullptr;
        latency_type type = latency_type::avg_read;
        time_ns due = 0;
    };
    // Those the base has completed, in the order in which it did. After a latency was made shorter the later ones still
    // wait for those before them.
    struct line : work {
        line() noexcept : timer(*this) {
            run = [](work& w) noexcept {
                auto& l = static_cast<line&>(w);
                l.of->let_go(l);
            };
        }
        delay_channel* of = nullptr;
        list<passage> waiting;
        thread::timer timer;
    };
    static constexpr std::size_t per_chunk = 32;

    void do_submit(io& r) noexcept override {
        if (r.operation != op::read && r.operation != op::write) return _base->submit(r);
        passage& p = take();
        p.request = &r;
        bool slow = one_in_a_hundred();
        p.type = r.operation == op::read ? (slow ? latency_type::p99_read : latency_type::avg_read)
                                         : (slow ? latency_type::p99_write : latency_type::avg_write);
        r.push([](io& done,
                  void* of) noexcept { static_cast<passage*>(of)->of->arrived(done, *static_cast<passage*>(of)); },
               &p);
        _base->submit(r);
    }

    // What was recalled below is wanted back now.
    void arrived(io& r, passage& p) noexcept {
        time_ns added = _added[static_cast<unsigned>(p.type)].load(std::memory_order_relaxed);
        if (added == 0 || r.status == status::aborted) {
            give_back(p);
            return complete(r);
        }
        p.due = on_thread().now() + added;
        line& l = _lines[static_cast<unsigned>(p.type)];
        l.waiting.push_back(p);
        if (!l.timer.running()) l.timer.start(added);
    }

    void let_go(line& l) noexcept {
        const time_ns now = on_thread().now();
        while (!l.waiting.empty() && l.waiting.front().due <= now) complete(leave(l.waiting.front()));
        if (!l.waiting.empty()) l.timer.start(l.waiting.front().due - now);
    }

    io& leave(passage& p) noexcept {
        p.unlink();
        io& r = *p.request;
        give_back(p);
        return r;
    }

    bool do_abort(io& r) noexcept override {
        for (line& l : _lines) {
            for (passage& p : l.waiting) {
                if (p.request != &r) continue;
                complete_later(leave(p), status::aborted);
                return true;
            }
        }
        return _base->abort(r);
    }
    void do_abort_all() noexcept override {
        for (line& l : _lines) {
            while (!l.waiting.empty()) complete_later(leave(l.waiting.front()), status::aborted);
        }
    }

    bool one_in_a_hundred() noexcept {
        _dice ^= _dice << 13;
        _dice ^= _dice >> 7;
        _dice ^= _dice << 17;
        return _dice % 100 == 0;
    }

    // Grows to the largest number of requests there ever were at once, and stays there.
    passage& take() noexcept {
        if (_free == nullptr) [[unlikely]] {
            _chunks.push_back(std::make_unique<passage[]>(per_chunk));
            for (std::size_t i = 0; i < per_chunk; ++i) {
                _chunks.back()[i].of = this;
                give_back(_chunks.back()[i]);
            }
        }
        return *std::exchange(_free, _free->next_free);
    }
    void give_back(passage& p) noexcept { p.next_free = std::exchange(_free, &p); }

    channel_ref _base;
    const latencies& _added;
    uint64_t _dice;
    passage* _free = nullptr;
    std::vector<std::unique_ptr<passage[]>> _chunks;
    std::array<line, latency_types> _lines;
};

class delay_device final : public layer {
  public:
    delay_device(const create_params& p, properties props, registry& devices, base_link base)
        : layer(std::move(props), devices, std::move(base)) {
        create_params all = p;
        for (unsigned i = 0; i < latency_types; ++i) set(latency_type(i), all.of(latency_type(i)));
    }
    std::string_view module_name() const noexcept override { return "delay"; }
    std::unique_ptr<channel> open_channel() override {
        return std::make_unique<delay_channel>(base_channel(), _added, devices().world().random());
    }
    json::value driver_specific() const override {
        return json::object{{"delay", json::object{{"name", name()},
                                                   {"base_bdev_name", base().name()},
                                                   {"uuid", props().uuid.to_string()},
                                                   {"avg_read_latency", added(latency_type::avg_read)},
                                                   {"p99_read_latency", added(latency_type::p99_read)},
                                                   {"avg_write_latency", added(latency_type::avg_write)},
                                                   {"p99_write_latency", added(latency_type::p99_write)}}}};
    }
    void set(latency_type t, uint64_t us) noexcept {
        _added[static_cast<unsigned>(t)].store(static_cast<time_ns>(us) * microseconds, std::memory_order_relaxed);
    }

  private:
    time_ns added(latency_type t) const noexcept {
        return _added[static_cast<unsigned>(t)].load(std::memory_order_relaxed) / microseconds;
    }
    latencies _added;
};

struct update_params {
    std::string delay_bdev_name;
    latency_type type = latency_type::avg_read;
    uint64_t latency_us = 0;
    static constexpr auto fields =
        std::tuple{rpc::required(&update_params::delay_bdev_name, "delay_bdev_name", "Name of the delay bdev"),
                   rpc::required(&update_params::type, "latency_type", "Which latency"),
                   rpc::required(&update_params::latency_us, "latency_us",
                                 "Microseconds, for requests that begin from now on", microseconds_allowed)};
};

class delay_module final : public layer_module<create_params> {
  public:
    delay_module() noexcept : layer_module({"delay", "delay", "bdev_delay_create", 1}) {}

  private:
    void add_methods(rpc::registry& to) override {
        auto create_it = [](delay_module& m, create_params p) { return m.create_checked(std::move(p)); };
        auto delete_it = [](delay_module& m, delete_params p) { return m.remove(std::move(p)); };
        auto update_it = [](delay_module& m, update_params p) { return m.update(std::move(p)); };
        to.add(rpc::make_method("bdev_delay_create", "Create a bdev that makes another one slower", create_it)
                   .bind(*this));
        to.add(rpc::make_method("bdev_delay_delete", "Delete a delay bdev", delete_it).bind(*this));
        to.add(
            rpc::make_method("bdev_delay_update_latency", "Change one latency of a delay bdev", update_it).bind(*this));
    }
    std::unique_ptr<device> make(const create_params& p, properties props, base_link base) override {
        return std::make_unique<delay_device>(p, std::move(props), devices(), std::move(base));
    }

    task<std::string> create_checked(create_params p) {
        if (p.p99_read_latency < p.avg_read_latency || p.p99_write_latency < p.avg_write_latency) {
            co_await fail(errc::invalid, "the p99 latency must not be less than the average");
        }
        co_return co_await create(std::move(p));
    }
    // The code is SPDK's.
    result<> update(update_params p) {
        create_params* kept = wanted(p.delay_bdev_name);
        if (kept == nullptr) {
            return fail(error(errc::rpc_invalid_params, fmt::format("there is no delay bdev {}", p.delay_bdev_name)));
        }
        kept->of(p.type) = p.latency_us;
        if (auto there = find(p.delay_bdev_name)) static_cast<delay_device&>(**there).set(p.type, p.latency_us);
        return {};
    }

    // After an update the average may be the greater one, which the creating call would refuse.
    void save(const create_params& p, std::vector<rpc::call>& calls) const override {
        create_params acceptable = p, now = p;
        acceptable.p99_read_latency = std::max(p.avg_read_latency, p.p99_read_latency);
        acceptable.p99_write_latency = std::max(p.avg_write_latency, p.p99_write_latency);
        layer_module::save(acceptable, calls);
        for (latency_type t : {latency_type::p99_read, latency_type::p99_write}) {
            if (now.of(t) == acceptable.of(t)) continue;
            calls.push_back({"bdev_delay_update_latency", rpc::encode(update_params{p.name, t, now.of(t)})});
        }
    }
};

}  // namespace

std::unique_ptr<bdev::module> make_delay() { return std::make_unique<delay_module>(); }

}  // namespace varve::modules
