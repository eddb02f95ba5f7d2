// Fuzzes NVMe/TCP connections of a whole target on a simulated machine. The input is a program: connect, speak
// well-formed prefixes (ICReq, Connect, enabling), send commands whose fields come from the input, answer R2Ts, damage
// a byte of the next PDU, send anything, wait, hold the disk back, take the namespace away, hang up. Whatever it does,
// the target must answer or end the connection, and come to its end with nothing left.
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "accel/crc32c.h"
#include "bdev/batch.h"
#include "bdev/device.h"
#include "bdev/registry.h"
#include "env/loop.h"
#include "env/sim/lone_world.h"
#include "nvme/fabrics.h"
#include "nvme/tcp.h"
#include "targets/nvmf/subsystem.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"
#include "thread/runtime.h"
#include "util/log.h"

namespace varve::targets::nvmf {
namespace {

namespace tcp = nvme::tcp;

constexpr const char* subsystem_name = "nqn.2016-06.io.spdk:cnode1";
const env::address at{.host = "127.0.0.1", .port = 4420};

struct input {
    const uint8_t* data;
    std::size_t size;
    uint8_t byte() {
        if (size == 0) return 0;
        --size;
        return *data++;
    }
    uint16_t word() { return static_cast<uint16_t>(byte() | byte() << 8); }
    std::string bytes(std::size_t most) {
        std::size_t n = std::min(most, size);
        std::string out(reinterpret_cast<const char*>(data), n);
        data += n;
        size -= n;
        return out;
    }
};

// Zeroes, late when told.
class fuzz_disk final : public bdev::device {
  public:
    explicit fuzz_disk(bdev::properties p) : device(std::move(p)) {}
    std::string_view module_name() const noexcept override { return "fuzz"; }
    std::unique_ptr<bdev::channel> open_channel() override { return std::make_unique<own_channel>(*this); }
    bool held = false;
    bool failing = false;

  private:
    struct own_channel final : bdev::channel, work {
        explicit own_channel(fuzz_disk& d) noexcept : of(d), timer(*this) {
            run = [](work& w) noexcept { static_cast<own_channel&>(w).look(); };
        }
        void do_submit(bdev::io& r) noexcept override {
            waiting.push(r);
            if (!timer.running()) timer.start(0);
        }
        void look() noexcept {
            if (of.held) return timer.start(100 * microseconds);
            for (work* next = waiting.take_all(); next != nullptr;) {
                auto& r = static_cast<bdev::io&>(*next);
                next = next->next;
                if (r.operation == bdev::op::read)
                    for (uint32_t i = 0; i < r.iov_count; ++i) std::memset(r.iov[i].iov_base, 0, r.iov[i].iov_len);
                complete(r, of.failing ? bdev::status::media_error : bdev::status::ok);
            }
        }
        fuzz_disk& of;
        thread::timer timer;
        queue<work> waiting;
    };
};

class host final : public env::socket_handler, public env::connect_handler {
  public:
    explicit host(thread::thread& on) : _on(on) {}
    ~host() { VARVE_ASSERT(!_socket); }

    void open() {
        if (_socket || _connecting) return;
        _connecting = true;
        _over = false;
        _received.clear();
        _on.loop().connect(at, *this);
    }
    void close() {
        if (_socket) _socket->close();
    }
    bool idle() const { return !_socket && !_connecting; }
    void send(std::string bytes) {
        if (!_socket || _over) return;
        auto op = std::make_unique<sending>();
        op->bytes = std::move(bytes);
        op->piece = {op->bytes.data(), op->bytes.size()};
        op->iov = &op->piece;
        op->iov_count = 1;
        op->done = [](env::send_op& o) noexcept { delete static_cast<sending*>(&o); };
        _socket->send(*op.release());
    }
    // A PDU with the digests in use, damaged as was asked for.
    void pdu(std::string header, const std::string& data = {}) {
        tcp::common_header ch;
        std::memcpy(&ch, header.data(), sizeof ch);
        bool ic = ch.type == 0;
        std::size_t digest = header_digest && !ic ? 4 : 0;
        ch.hlen = static_cast<uint8_t>(header.size());
        ch.flags = static_cast<uint8_t>(ch.flags | (digest != 0 ? 1 : 0) | (data_digest && !data.empty() ? 2 : 0));
        ch.pdo = data.empty() ? 0 : static_cast<uint8_t>(header.size() + digest);
        ch.plen = static_cast<uint32_t>(header.size() + digest + data.size() + (data_digest && !data.empty() ? 4 : 0));
        std::memcpy(header.data(), &ch, sizeof ch);
        auto crc = [](const std::string& of) {
            le32 value(accel::crc32c(std::as_bytes(std::span(of))));
            return std::string(reinterpret_cast<const char*>(&value), 4);
        };
        std::string whole = header + (digest != 0 ? crc(header) : "") + data;
        if (data_digest && !data.empty()) whole += crc(data);
        if (damage) {
            whole[damage->first % whole.size()] = static_cast<char>(damage->second);
            damage.reset();
        }
        send(std::move(whole));
    }
    template <class T>
    void pdu_of(tcp::pdu_type type, T what, const std::string& data = {}) {
        what.ch.type = nvme::raw(type);
        pdu(std::string(reinterpret_cast<const char*>(&what), sizeof what), data);
    }
    void command(nvme::sqe c, const std::string& data = {}) {
        tcp::capsule_cmd capsule{};
        capsule.command = c;
        pdu_of(tcp::pdu_type::capsule_cmd, capsule, data);
    }
    // The newest R2T that came, if any.
    std::optional<tcp::r2t> r2t() {
        std::optional<tcp::r2t> found;
        std::size_t here = 0;
        while (_received.size() - here >= sizeof(tcp::common_header)) {
            tcp::common_header ch;
            std::memcpy(&ch, _received.data() + here, sizeof ch);
            if (ch.plen < sizeof ch || ch.plen > _received.size() - here) break;
            if (ch.type == nvme::raw(tcp::pdu_type::r2t) && ch.plen >= sizeof(tcp::r2t)) {
                found.emplace();
                std::memcpy(&*found, _received.data() + here, sizeof(tcp::r2t));
            }
            here += ch.plen;
        }
        return found;
    }

    bool header_digest = false, data_digest = false;
    std::optional<std::pair<uint16_t, uint8_t>> damage;

  private:
    struct sending : env::send_op {
        std::string bytes;
        iovec piece;
    };
    void on_connect(result<std::unique_ptr<env::socket>> outcome) noexcept override {
        thread::entered in(_on);
        _connecting = false;
        if (!outcome) return;
        _socket = std::move(*outcome);
        _socket->start(*this);
    }
    std::size_t on_data(std::span<const std::byte> bytes) noexcept override {
        thread::entered in(_on);
        _received.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return bytes.size();
    }
    void on_closed(int) noexcept override {
        thread::entered in(_on);
        _over = true;
        _socket.reset();
    }

    thread::thread& _on;
    std::unique_ptr<env::socket> _socket;
    std::string _received;
    bool _connecting = false, _over = false;
};

class session {
  public:
    session(thread::runtime& rt, bdev::registry& devices, const logger& log, input program)
        : _devices(devices), _target(rt, devices, log), _in(program) {
        for (auto& h : _hosts) h.emplace(rt.app_thread());
    }

    task<> live() {
        co_await begin();
        constexpr unsigned steps_max = 200;
        for (unsigned i = 0; i < steps_max && _in.size != 0; ++i) co_await step();
        _disk->held = false;
        co_await sleep(1 * milliseconds);
        // Half of the inputs stop the target under their connections, the others hang up before.
        if ((_in.byte() & 1) == 0) co_await hang_up();
        co_await _target.stop();
        co_await hang_up();
        co_await _devices.remove_all();
    }

  private:
    task<> begin() {
        bdev::properties p;
        p.name = "disk";
        p.num_blocks = 2048;
        using enum bdev::op;
        for (bdev::op o : {flush, unmap, write_zeroes, compare, copy}) p.offered |= bdev::op_bit(o);
        auto disk = std::make_unique<fuzz_disk>(std::move(p));
        _disk = disk.get();
        co_await _devices.add(std::move(disk));
        co_await _target.start();
        co_await _target.create_transport({.max_io_qpairs_per_ctrlr = 4});
        _subsystem = co_await _target.create_subsystem(
            {.nqn = subsystem_name, .allow_any_host = true, .ana_reporting = (_in.byte() & 1) != 0});
        co_await _subsystem->add_listener({.at = at});
        co_await _subsystem->add_namespace({.nsid = 1, .bdev_name = "disk"});
    }
    task<> hang_up() {
        for (auto& h : _hosts) h->close();
        for (auto& h : _hosts)
            while (!h->idle()) {
                h->close();
                co_await sleep(100 * microseconds);
            }
    }

    task<> step() {
        uint8_t op = _in.byte();
        host& h = *_hosts[op >> 6];
        switch (op & 0x1f) {
            case 0:
                h.open();
                co_return co_await sleep(200 * microseconds);
            case 1:
                co_return ic_req(h);
            case 2:
                co_return connect(h, 0);
            case 3:
                co_return connect(h, static_cast<uint16_t>(1 + (_in.byte() & 7)));
            case 4:
                co_return property(h, _in.byte());
            case 5:
                co_return admin(h);
            case 6:
                co_return io(h, false);
            case 7:
                co_return io(h, true);
            case 8:
                co_return h2c(h);
            case 9:
                h.damage.emplace(_in.word(), _in.byte());
                co_return;
            case 10:
                co_return h.send(_in.bytes(_in.byte()));
            case 11:
                co_return co_await sleep((1 + _in.byte()) * 10 * microseconds);
            case 12:
                _disk->held = !_disk->held;
                co_return;
            case 13:
                _disk->failing = !_disk->failing;
                co_return;
            case 14:
                co_return h.close();
            case 15:
                co_return co_await change_namespace();
            case 16:  // everything a queue needs, in order
                h.open();
                co_await sleep(500 * microseconds);
                ic_req(h);
                connect(h, static_cast<uint16_t>(op >> 6));
                co_await sleep(1 * milliseconds);
                if (op >> 6 == 0) property(h, 0);
                co_return co_await sleep(1 * milliseconds);
            case 17:
                co_return raw_command(h);
            case 18:
                co_return co_await sleep(10 * milliseconds * (1 + _in.byte()));
            default:
                co_return co_await sleep(50 * microseconds);
        }
    }

    void ic_req(host& h) {
        uint8_t how = _in.byte();
        h.header_digest = (how & 1) != 0;
        h.data_digest = (how & 2) != 0;
        tcp::ic_req pdu{};
        pdu.dgst = how & 3;
        pdu.hpda = (how & 4) != 0 ? how >> 3 : 0;
        pdu.maxr2t = 0;
        h.pdu_of(tcp::pdu_type::ic_req, pdu);
    }
    void connect(host& h, uint16_t qid) {
        uint8_t how = _in.byte();
        nvme::connect_command c{};
        c.opcode = nvme::raw(nvme::nvm_opcode::fabrics);
        c.flags = 0x40;
        c.cid = _in.byte();
        c.type = nvme::raw(nvme::fabrics_type::connect);
        c.dptr = nvme::sgl_descriptor::in_capsule(sizeof(nvme::connect_data));
        c.qid = qid;
        c.sqsize = static_cast<uint16_t>((how & 1) != 0 ? _in.word() : 31);
        c.attributes = (how & 2) != 0 ? 4 : 0;
        c.keep_alive_ms = (how & 4) != 0 ? 50 * _in.byte() : 0;
        nvme::connect_data data{};
        data.controller_id = static_cast<uint16_t>(qid == 0 ? 0xffff : (how & 8) != 0 ? _in.byte() : _controller++);
        if (qid != 0 && (how & 8) == 0) data.controller_id = 1;
        std::string_view name = (how & 16) != 0 ? nvme::discovery_nqn : std::string_view(subsystem_name);
        std::memcpy(data.subnqn, name.data(), name.size());
        std::memcpy(data.hostnqn, "nqn.2016-06.io.spdk:host", 25);
        h.command(nvme::view_as<nvme::sqe>(c), std::string(reinterpret_cast<const char*>(&data), sizeof data));
    }
    void property(host& h, uint8_t how) {
        nvme::property_set_command p{};
        p.opcode = nvme::raw(nvme::nvm_opcode::fabrics);
        p.flags = 0x40;
        p.cid = how;
        p.type = nvme::raw((how & 1) == 0 ? nvme::fabrics_type::property_set : nvme::fabrics_type::property_get);
        p.offset = (how & 2) == 0 ? nvme::raw(nvme::property::cc) : uint32_t{_in.byte()};
        p.value = (how & 4) == 0 ? 0x460001u : uint32_t{_in.word()} | 0x460000u;
        if ((how & 1) != 0) p.attributes = how >> 3 & 1;
        h.command(nvme::view_as<nvme::sqe>(p));
    }
    void admin(host& h) {
        constexpr std::array<uint8_t, 8> opcodes{0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x0d};
        nvme::sqe c{};
        c.opcode = opcodes[_in.byte() & 7];
        c.flags = 0x40;
        c.cid = _in.byte();
        c.nsid = _in.byte() & 3;
        c.cdw10 = _in.word() | uint32_t{_in.word()} << 16;
        c.cdw11 = _in.word();
        c.cdw12 = _in.byte();
        uint8_t how = _in.byte();
        uint32_t length = (how & 0x3f) * 64;
        c.dptr = nvme::sgl_descriptor::by_transport((how & 0x40) != 0 ? 4096 : length);
        if ((how & 0x80) == 0) return h.command(c);
        c.dptr = nvme::sgl_descriptor::in_capsule(length);
        h.command(c, std::string(length, 'a'));
    }
    void io(host& h, bool in_capsule) {
        constexpr std::array<uint8_t, 8> opcodes{0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x19, 0x01};
        nvme::sqe c{};
        uint8_t how = _in.byte();
        c.opcode = opcodes[how & 7];
        c.flags = static_cast<uint8_t>(0x40 | (how >> 3 & 3));
        c.cid = _in.byte();
        c.nsid = (how & 0x20) != 0 ? _in.byte() : 1;
        c.set_slba((how & 0x40) != 0 ? _in.word() : _in.byte());
        uint32_t blocks = 1 + (_in.byte() & 15);
        c.cdw12 = (blocks - 1) | ((how & 0x80) != 0 ? uint32_t{_in.word()} << 16 : 0);
        bool ranges = c.opcode == 0x09 || c.opcode == 0x19;
        if (c.opcode == 0x09) {
            c.cdw10 = blocks - 1;
            c.cdw11 = 4;
        }
        uint32_t length = ranges ? blocks * (c.opcode == 0x09 ? 16 : 32) : blocks * 512;
        if (!in_capsule) {
            c.dptr = nvme::sgl_descriptor::by_transport(length);
            return h.command(c);
        }
        c.dptr = nvme::sgl_descriptor::in_capsule(length);
        std::string data(length, '\0');
        std::string given = _in.bytes(ranges ? 64 : 4);
        std::memcpy(data.data(), given.data(), std::min(given.size(), data.size()));
        h.command(c, data);
    }
    void h2c(host& h) {
        uint8_t how = _in.byte();
        tcp::h2c_data pdu{};
        uint32_t length = 512;
        if (auto asked = h.r2t()) {
            pdu.cccid = asked->cccid;
            pdu.ttag = asked->ttag;
            pdu.datao = asked->r2to;
            length = std::min<uint32_t>(asked->r2tl, 131072);
        }
        if ((how & 1) != 0) pdu.ttag = _in.word();
        if ((how & 2) != 0) pdu.datao = _in.word();
        if ((how & 4) != 0) length = std::min<uint32_t>(length, _in.word());
        if ((how & 8) != 0) pdu.cccid = _in.word();
        pdu.datal = (how & 16) != 0 ? uint32_t{_in.word()} : length;
        pdu.ch.flags = (how & 32) != 0 ? 0 : 4;
        h.pdu_of(tcp::pdu_type::h2c_data, pdu, std::string(length, 'd'));
    }
    void raw_command(host& h) {
        nvme::sqe c{};
        std::string bytes = _in.bytes(sizeof c);
        std::memcpy(&c, bytes.data(), bytes.size());
        h.command(c, _in.bytes(_in.byte()));
    }
    task<> change_namespace() {
        uint8_t how = _in.byte();
        if (_disk->held) co_return;  // removal would wait for it
        if ((how & 1) != 0 && _subsystem->find_namespace(1) != nullptr)
            co_return co_await _subsystem->remove_namespace(1);
        if (_subsystem->find_namespace(1) == nullptr)
            co_await _subsystem->add_namespace({.nsid = 1, .bdev_name = "disk", .no_auto_visible = (how & 2) != 0});
        if ((how & 4) != 0) co_await _devices.resize(*_disk, 1024 + how);
        if ((how & 8) != 0 && _subsystem->options().ana_reporting)
            co_await _subsystem->set_ana_state(at, std::nullopt, static_cast<ana_state>(1 + (how >> 4) % 4));
    }

    bdev::registry& _devices;
    target _target;
    input _in;
    std::array<std::optional<host>, 4> _hosts;
    fuzz_disk* _disk = nullptr;
    subsystem* _subsystem = nullptr;
    uint16_t _controller = 1;
};

int run(input program) {
    env::sim::lone_world world(program.byte(), {.cpus = 2});
    thread::runtime_options how;
    how.cpus.emplace();
    how.cpus->add(0);
    if ((program.byte() & 1) != 0) how.cpus->add(1);
    how.buffer_limit = 8 << 20;
    auto rt = thread::runtime::make(world, how);
    VARVE_ASSERT(rt.has_value());
    log lines([](const log::line&) {});
    bdev::registry devices(**rt);
    {
        session s(**rt, devices, lines.component("nvmf"), program);
        (*rt)->app_thread().post([&] {
            start_detached(s.live(), [&](result<> outcome) {
                VARVE_ASSERT(outcome.has_value());
                (*rt)->stop();
            });
        });
        (*rt)->run();
    }
    return 0;
}

}  // namespace
}  // namespace varve::targets::nvmf

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return varve::targets::nvmf::run({data, size});
}
