#include "modules/error.h"

#include <array>
#include <atomic>

#include "bdev/layer_module.h"

namespace varve::modules {

namespace {

using namespace bdev;

struct create_params {
    std::string base_bdev_name;
    std::optional<uuid> id;
    std::string name;  // "EE_" and the base's
    static constexpr auto fields = std::tuple{
        rpc::required(&create_params::base_bdev_name, "base_name",
                      "Name of the bdev below; the new one's is EE_ and it"),
        rpc::optional(&create_params::id, "uuid", "UUID of the new bdev; made from the base's when not given")};
};

enum class victims : uint8_t { clear, read, write, unmap, flush, all };
enum class error_kind : uint8_t { failure, nvme_failure, pending, corrupt_data, nomem };

constexpr auto names_of(victims) {
    return std::to_array<rpc::named<victims>>({{"clear", victims::clear},
                                               {"read", victims::read},
                                               {"write", victims::write},
                                               {"unmap", victims::unmap},
                                               {"flush", victims::flush},
                                               {"all", victims::all}});
}
constexpr auto names_of(error_kind) {
    return std::to_array<rpc::named<error_kind>>({{"failure", error_kind::failure},
                                                  {"nvme_failure", error_kind::nvme_failure},
                                                  {"pending", error_kind::pending},
                                                  {"corrupt_data", error_kind::corrupt_data},
                                                  {"nomem", error_kind::nomem}});
}

struct inject_params {
    std::string name;
    victims io_type = victims::all;
    error_kind error_type = error_kind::failure;
    uint32_t nvme_sct = 0, nvme_sc = 0;
    uint32_t num = 1;
    uint64_t queue_depth = 0, corrupt_offset = 0;
    uint8_t corrupt_value = 0;
    static constexpr auto fields = std::tuple{
        rpc::required(&inject_params::name, "name", "Name of the error bdev"),
        rpc::required(&inject_params::io_type, "io_type", "Which requests; clear: end all injections"),
        rpc::required(&inject_params::error_type, "error_type", "What becomes of them"),
        rpc::optional(&inject_params::nvme_sct, "nvme_sct", "Status code type of nvme_failure", rpc::range<0, 7>),
        rpc::optional(&inject_params::nvme_sc, "nvme_sc", "Status code of nvme_failure", rpc::range<0, 255>),
        rpc::optional(&inject_params::num, "num", "How many requests; 0: none any more"),
        rpc::optional(&inject_params::queue_depth, "queue_depth",
                      "Only while at least so many other requests of the channel are under way below"),
        rpc::optional(&inject_params::corrupt_offset, "corrupt_offset", "Byte of the data that corrupt_data changes"),
        rpc::optional(&inject_params::corrupt_value, "corrupt_value",
                      "What corrupt_data changes it with, by exclusive or; not 0")};
};

// What is to go wrong with one kind of request. Nothing but `left` changes after channels can see it.
struct injection {
    injection(const inject_params& p) noexcept
        : kind(p.error_type),
          status(nvme_status(p.nvme_sct, p.nvme_sc)),
          queue_depth(p.queue_depth),
          corrupt_offset(p.corrupt_offset),
          corrupt_value(static_cast<std::byte>(p.corrupt_value)),
          left(p.num) {}
    // One request of so many is taken, whichever channel comes first.
    bool take() noexcept {
        uint32_t before = left.load(std::memory_order_relaxed);
        while (before != 0) {
            if (left.compare_exchange_weak(before, before - 1, std::memory_order_relaxed)) return true;
        }
        return false;
    }
    const error_kind kind;
    const bdev::status status;
    const uint64_t queue_depth, corrupt_offset;
    const std::byte corrupt_value;
    std::atomic<uint32_t> left;
};

// Set on the app thread, read by channels for each request.
using injections = std::array<std::atomic<injection*>, op_count>;
constexpr op can_be_struck[] = {op::read, op::write, op::unmap, op::flush};

// One byte of the data is changed: of what was read, in place; of what is written, in a copy of that byte.
struct corruption {
    uint64_t offset = 0;
    std::byte with{};
    std::byte changed{};
    iovec* given = nullptr;
    uint32_t given_count = 0;
    std::vector<iovec> pieces;

    static std::byte* find(const iovec* v, uint32_t count, uint64_t at) noexcept {
        for (const iovec* end = v + count; v != end; ++v) {
            if (at < v->iov_len) return static_cast<std::byte*>(v->iov_base) + at;
            at -= v->iov_len;
        }
        return nullptr;
    }
    // The data with another byte in the place of one.
    void replace(io& r) {
        const std::byte* at = find(r.iov, r.iov_count, offset);
        if (at == nullptr) return;
        changed = *at ^ with;
        given = r.iov;
        given_count = r.iov_count;
        uint64_t begin = 0;
        for (const iovec *v = given, *end = given + given_count; v != end; begin += v->iov_len, ++v) {
            auto* base = static_cast<std::byte*>(v->iov_base);
            if (offset < begin || offset - begin >= v->iov_len) {
                pieces.push_back(*v);
                continue;
            }
            std::size_t before = offset - begin, after = v->iov_len - before - 1;
            if (before != 0) pieces.push_back({base, before});
            pieces.push_back({&changed, 1});
            if (after != 0) pieces.push_back({base + before + 1, after});
        }
        r.iov = pieces.data();
        r.iov_count = static_cast<uint32_t>(pieces.size());
    }
    static void over(io& r, void* self) noexcept {
        std::unique_ptr<corruption> mine(static_cast<corruption*>(self));
        if (mine->given != nullptr) {
            r.iov = mine->given;
            r.iov_count = mine->given_count;
        } else if (r.operation == op::read && r.status == status::ok) {
            if (std::byte* at = find(r.iov, r.iov_count, mine->offset)) *at ^= mine->with;
        }
        complete(r);
    }
};

class error_channel final : public channel {
  public:
    error_channel(channel_ref base, injections& from) noexcept : _base(std::move(base)), _injections(from) {}

    // What an injection keeps is looked at again.
    void resume() noexcept {
        work* next = _kept.take_all();
        _kept_count = 0;
        while (work* w = next) {
            next = w->next;
            do_submit(static_cast<io&>(*w));
        }
    }

  private:
    void do_submit(io& r) noexcept override {
        injection* i = _injections[static_cast<unsigned>(r.operation)].load(std::memory_order_acquire);
        if (i == nullptr || in_flight() - 1 - _kept_count < i->queue_depth || !i->take()) return _base->submit(r);
        switch (i->kind) {
            case error_kind::failure:
                return complete_later(r, status::failed);
            case error_kind::nvme_failure:
                return complete_later(r, i->status);
            case error_kind::nomem:
                return complete_later(r, status::no_memory);
            case error_kind::pending:
                ++_kept_count;
                return _kept.push(r);
            case error_kind::corrupt_data:
                break;
        }
        if (r.operation == op::read || r.operation == op::write) {
            auto* c = new corruption{.offset = i->corrupt_offset, .with = i->corrupt_value};
            if (r.operation == op::write) c->replace(r);
            r.push(corruption::over, c);
        }
        _base->submit(r);
    }

    bool do_abort(io& r) noexcept override {
        bool found = false;
        for (work *w = _kept.take_all(), *next = nullptr; w != nullptr; w = next) {
            next = w->next;
            if (w == &r) {
                found = true;
            } else {
                _kept.push(*w);
            }
        }
        if (!found) return _base->abort(r);
        --_kept_count;
        complete_later(r, status::aborted);
        return true;
    }
    void do_abort_all() noexcept override {
        _kept_count = 0;
        for (work *w = _kept.take_all(), *next = nullptr; w != nullptr; w = next) {
            next = w->next;
            complete_later(static_cast<io&>(*w), status::aborted);
        }
    }

    channel_ref _base;
    injections& _injections;
    queue<work> _kept;
    uint32_t _kept_count = 0;
};

class error_device final : public layer {
  public:
    using layer::layer;
    std::string_view module_name() const noexcept override { return "error"; }
    std::unique_ptr<channel> open_channel() override {
        return std::make_unique<error_channel>(base_channel(), _injections);
    }
    json::value driver_specific() const override {
        return json::object{{"error_disk", json::object{{"base_bdev", base().name()}}}};
    }

    void inject(op o, const inject_params& p) {
        _made.push_back(std::make_unique<injection>(p));
        at(o).store(_made.back().get(), std::memory_order_release);
    }
    void clear(op o) noexcept { at(o).store(nullptr, std::memory_order_relaxed); }
    task<> resume_pending() {
        for (op o : can_be_struck) {
            const injection* i = at(o).load(std::memory_order_relaxed);
            if (i != nullptr && i->kind == error_kind::pending) clear(o);
        }
        return devices().visit_channels(*this, [](channel& c) { static_cast<error_channel&>(c).resume(); });
    }

  private:
    std::atomic<injection*>& at(op o) noexcept { return _injections[static_cast<unsigned>(o)]; }
    injections _injections{};
    std::vector<std::unique_ptr<injection>> _made;  // channels may still look at old ones
};

op op_of(victims v) noexcept {
    constexpr op each[] = {op::count, op::read, op::write, op::unmap, op::flush};
    return each[static_cast<unsigned>(v)];
}

class error_module final : public layer_module<create_params> {
  public:
    // A frame for corruption.
    error_module() noexcept : layer_module({"error", "Error Injection Disk", "bdev_error_create", 1}) {}

  private:
    void add_methods(rpc::registry& to) override {
        auto create_it = [](error_module& m, create_params p) { return m.create_named(std::move(p)); };
        auto delete_it = [](error_module& m, delete_params p) { return m.remove(std::move(p)); };
        auto inject_it = [](error_module& m, const inject_params& p) { return m.inject(p); };
        auto resume_it = [](error_module& m, delete_params p) { return m.resume(std::move(p)); };
        to.add(rpc::make_method("bdev_error_create", "Create a bdev whose requests fail on demand", create_it)
                   .bind(*this));
        to.add(rpc::make_method("bdev_error_delete", "Delete an error bdev", delete_it).bind(*this));
        to.add(
            rpc::make_method("bdev_error_inject_error", "Let requests of an error bdev fail", inject_it).bind(*this));
        to.add(rpc::make_method("bdev_error_resume_pending", "Let go what an error bdev keeps", resume_it).bind(*this));
    }
    std::unique_ptr<device> make(const create_params&, properties props, base_link base) override {
        return std::make_unique<error_device>(std::move(props), devices(), std::move(base));
    }

    task<> create_named(create_params p) {
        p.name = "EE_" + p.base_bdev_name;
        co_await create(std::move(p));
    }

    result<> inject(const inject_params& p) {
        if ((p.error_type == error_kind::nvme_failure) != (p.nvme_sct != 0 || p.nvme_sc != 0)) {
            return fail(errc::invalid, "nvme_sct or nvme_sc must be given with nvme_failure, and only with it");
        }
        if (p.error_type == error_kind::corrupt_data && p.corrupt_value == 0) {
            return fail(errc::invalid, "corrupt_value 0 would change nothing");
        }
        auto found = find(p.name);
        if (!found) return fail(std::move(found).error());
        auto& d = static_cast<error_device&>(**found);
        for (op o : can_be_struck) {
            if (p.io_type == victims::clear || (p.num == 0 && (p.io_type == victims::all || op_of(p.io_type) == o))) {
                d.clear(o);
            } else if (p.io_type == victims::all || op_of(p.io_type) == o) {
                d.inject(o, p);
            }
        }
        return {};
    }

    task<> resume(delete_params p) {
        device* d = co_await find(p.name);
        co_await static_cast<error_device&>(*d).resume_pending();
    }
};

}  // namespace

std::unique_ptr<bdev::module> make_error() { return std::make_unique<error_module>(); }

}  // namespace varve::modules
