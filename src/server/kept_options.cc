#include "server/kept_options.h"

#include <algorithm>
#include <array>

namespace varve::server {

namespace {

using rpc::states;

// --- sock
// -------------------------------------------------------------------------------------------------------------

struct sock_options {
    std::string impl_name;
    uint32_t recv_buf_size = 2'097'152;
    uint32_t send_buf_size = 2'097'152;
    bool enable_recv_pipe = true;
    bool enable_quickack = false;
    uint32_t enable_placement_id = 0;
    bool enable_zerocopy_send_server = true;
    bool enable_zerocopy_send_client = false;
    uint32_t zerocopy_threshold = 0;
    uint32_t tls_version = 0;
    bool enable_ktls = false;
    static constexpr auto fields =
        std::tuple{rpc::required(&sock_options::impl_name, "impl_name", "posix, uring or ssl"),
                   rpc::optional(&sock_options::recv_buf_size, "recv_buf_size", "Bytes"),
                   rpc::optional(&sock_options::send_buf_size, "send_buf_size", "Bytes"),
                   rpc::optional(&sock_options::enable_recv_pipe, "enable_recv_pipe", "Kept, without effect"),
                   rpc::optional(&sock_options::enable_quickack, "enable_quickack", "Kept, without effect"),
                   rpc::optional(&sock_options::enable_placement_id, "enable_placement_id", "Kept, without effect"),
                   rpc::optional(&sock_options::enable_zerocopy_send_server, "enable_zerocopy_send_server",
                                 "Kept, without effect"),
                   rpc::optional(&sock_options::enable_zerocopy_send_client, "enable_zerocopy_send_client",
                                 "Kept, without effect"),
                   rpc::optional(&sock_options::zerocopy_threshold, "zerocopy_threshold", "Kept, without effect"),
                   rpc::optional(&sock_options::tls_version, "tls_version", "Kept, without effect"),
                   rpc::optional(&sock_options::enable_ktls, "enable_ktls", "Kept, without effect")};
};

struct sock_name {
    std::string impl_name;
    static constexpr auto fields = std::tuple{rpc::required(&sock_name::impl_name, "impl_name", "posix, uring or ssl")};
};

class sock final : public rpc::subsystem {
  public:
    std::string_view name() const noexcept override { return "sock"; }

    void add_methods(rpc::registry& to) override {
        using rpc::make_method;
        auto add = [&](auto m) { to.add(m.bind(*this)); };
        add(make_method(
            "sock_get_default_impl", "The socket implementation in use", [](sock& s) { return sock_name{s._default}; },
            states::any));
        add(make_method("sock_set_default_impl", "Accepted: the program chooses io_uring or epoll itself",
                        &sock::set_default, states::startup));
        add(make_method("sock_impl_get_options", "The options kept for a socket implementation", &sock::get_options,
                        states::any));
        add(make_method("sock_impl_set_options", "Keeps options of a socket implementation", &sock::set_options,
                        states::startup));
    }

    std::optional<std::vector<rpc::call>> config() const override {
        std::vector<rpc::call> out{{"sock_set_default_impl", rpc::encode(sock_name{_default})}};
        for (const sock_options& o : _impls) out.push_back({"sock_impl_set_options", rpc::encode(o)});
        return out;
    }

  private:
    sock_options* find(std::string_view name) {
        auto found = std::ranges::find(_impls, name, &sock_options::impl_name);
        return found != _impls.end() ? &*found : nullptr;
    }
    static std::unexpected<error> unknown(std::string_view name) {
        return fail(errc::rpc_invalid_params, "there is no socket implementation " + std::string(name));
    }
    static result<> set_default(sock& s, sock_name p) {
        if (s.find(p.impl_name) == nullptr) return unknown(p.impl_name);
        s._default = p.impl_name;
        return {};
    }
    static result<json::value> get_options(sock& s, sock_name p) {
        const sock_options* o = s.find(p.impl_name);
        if (o == nullptr) return unknown(p.impl_name);
        json::object out;
        const json::value all = rpc::encode(*o);
        for (const json::member& m : *all.members()) {
            if (m.name != "impl_name") out.add(m.name, m.data);
        }
        return out;
    }
    static result<> set_options(sock& s, rpc::update<sock_options> p) {
        sock_options* o = s.find(p.alone().impl_name);
        if (o == nullptr) return unknown(p.alone().impl_name);
        *o = p.onto(*o);
        return {};
    }

    std::string _default = "posix";
    std::array<sock_options, 3> _impls{sock_options{.impl_name = "uring", .enable_zerocopy_send_server = false},
                                       sock_options{.impl_name = "ssl", .recv_buf_size = 4096, .send_buf_size = 4096},
                                       sock_options{.impl_name = "posix"}};
};

// --- iobuf
// ------------------------------------------------------------------------------------------------------------

struct iobuf_options {
    uint64_t small_pool_count = 8192;
    uint64_t large_pool_count = 1024;
    uint32_t small_bufsize = 8192;
    uint32_t large_bufsize = 135'168;
    bool enable_numa = false;
    static constexpr auto fields =
        std::tuple{rpc::optional(&iobuf_options::small_pool_count, "small_pool_count", "Kept: pools grow with need",
                                 rpc::at_least<64>),
                   rpc::optional(&iobuf_options::large_pool_count, "large_pool_count", "Kept: pools grow with need",
                                 rpc::at_least<8>),
                   rpc::optional(&iobuf_options::small_bufsize, "small_bufsize", "Kept: bytes", rpc::at_least<4096>),
                   rpc::optional(&iobuf_options::large_bufsize, "large_bufsize", "Kept: bytes", rpc::at_least<8192>),
                   rpc::optional(&iobuf_options::enable_numa, "enable_numa", "Kept, without effect")};
};

class iobuf final : public rpc::subsystem {
  public:
    std::string_view name() const noexcept override { return "iobuf"; }
    void add_methods(rpc::registry& to) override {
        using rpc::make_method;
        to.add(make_method(
                   "iobuf_set_options", "Keeps the sizes of buffer pools; ours are sized by need",
                   [](iobuf& b, rpc::update<iobuf_options> p) { b._options = p.onto(b._options); }, states::startup)
                   .bind(*this));
        to.add(make_method("iobuf_get_stats",
                           "How often buffers were taken from caches and pools; none is counted here",
                           [] { return stats(); }));
    }
    std::optional<std::vector<rpc::call>> config() const override {
        return std::vector<rpc::call>{{"iobuf_set_options", rpc::encode(_options)}};
    }

  private:
    static json::value stats() {
        json::array out;
        for (const char* user : {"accel", "bdev", "nvmf_TCP"}) {
            const json::value none = json::object{{"cache", 0}, {"main", 0}, {"retry", 0}, {"cache_size", 0}};
            out.push_back(json::object{{"module", user}, {"small_pool", none}, {"large_pool", none}});
        }
        return out;
    }

    iobuf_options _options;
};

// --- accel
// ------------------------------------------------------------------------------------------------------------

struct accel_options {
    uint32_t small_cache_size = 128;
    uint32_t large_cache_size = 16;
    uint32_t task_count = 2048;
    uint32_t sequence_count = 2048;
    uint32_t buf_count = 2048;
    static constexpr auto fields =
        std::tuple{rpc::optional(&accel_options::small_cache_size, "small_cache_size", "Kept, without effect"),
                   rpc::optional(&accel_options::large_cache_size, "large_cache_size", "Kept, without effect"),
                   rpc::optional(&accel_options::task_count, "task_count", "Kept, without effect"),
                   rpc::optional(&accel_options::sequence_count, "sequence_count", "Kept, without effect"),
                   rpc::optional(&accel_options::buf_count, "buf_count", "Kept, without effect")};
};

constexpr const char* accel_operations[] = {"copy", "fill", "compare", "crc32c", "copy_crc32c"};

class accel final : public rpc::subsystem {
  public:
    std::string_view name() const noexcept override { return "accel"; }
    std::vector<std::string> depends_on() const override { return {"iobuf"}; }
    void add_methods(rpc::registry& to) override {
        using rpc::make_method;
        to.add(make_method(
                   "accel_set_options", "Keeps the sizes of pools; ours are sized by need",
                   [](accel& a, rpc::update<accel_options> p) { a._options = p.onto(a._options); }, states::startup)
                   .bind(*this));
        to.add(make_method("accel_get_opc_assignments", "Which module does which operation", []() -> json::value {
            json::object out;
            for (const char* name : accel_operations) out.add(name, "software");
            return out;
        }));
        to.add(make_method("accel_get_module_info", "The modules and what they can do", []() -> json::value {
            json::array operations(std::begin(accel_operations), std::end(accel_operations));
            return json::array{json::object{{"module", "software"}, {"supported ops", std::move(operations)}}};
        }));
    }
    std::optional<std::vector<rpc::call>> config() const override {
        return std::vector<rpc::call>{{"accel_set_options", rpc::encode(_options)}};
    }

  private:
    accel_options _options;
};

}  // namespace

std::unique_ptr<rpc::subsystem> make_sock() { return std::make_unique<sock>(); }
std::unique_ptr<rpc::subsystem> make_iobuf() { return std::make_unique<iobuf>(); }
std::unique_ptr<rpc::subsystem> make_accel() { return std::make_unique<accel>(); }

}  // namespace varve::server
