// A host over a wire: PDUs by hand, or whole commands.
//
//   test_host h(t);
//   co_await h.connect();                          admin queue, controller enabled
//   test_host q(t);
//   co_await q.connect_io(h.controller_id);
//   reply r = co_await q.command(read_command(1, 0, 8));
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "accel/crc32c.h"
#include "nvme/fabrics.h"
#include "nvme/tcp.h"
#include "targets/nvmf/protocol_tests/fake_socket.h"
#include "targets/nvmf/protocol_tests/test_target.h"
#include "targets/nvmf/tcp_connection.h"

namespace varve::targets::nvmf::protocol_tests {

namespace tcp = nvme::tcp;

template <class T>
std::string bytes_of(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
template <class T>
T read_as(std::string_view bytes, std::size_t offset = 0) {
    T value{};
    if (bytes.size() >= offset + sizeof value) std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}
inline std::string digest_of(std::string_view bytes) {
    return bytes_of(le32(accel::crc32c(std::as_bytes(std::span(bytes)))));
}
inline std::string pattern(std::size_t size, unsigned seed) {
    std::string out(size, '\0');
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>((i * 131 + i / 512 + seed * 7) & 0xff);
    return out;
}

// --- commands

template <class Opcode>
nvme::sqe make_command(Opcode opcode, uint32_t nsid = 0) {
    nvme::sqe c{};
    c.opcode = static_cast<uint8_t>(opcode);
    c.nsid = nsid;
    c.set_flags(nvme::fuse::none, nvme::data_pointer::sgl);
    return c;
}
inline nvme::sqe io_command(nvme::nvm_opcode opcode, uint32_t nsid, uint64_t lba, uint32_t blocks,
                            uint32_t block_size = 512) {
    nvme::sqe c = make_command(opcode, nsid);
    c.set_slba(lba);
    c.cdw12 = blocks - 1;
    c.dptr = nvme::sgl_descriptor::by_transport(blocks * block_size);
    return c;
}
inline nvme::sqe read_command(uint32_t nsid, uint64_t lba, uint32_t blocks) {
    return io_command(nvme::nvm_opcode::read, nsid, lba, blocks);
}
// In the capsule, or by R2T.
inline nvme::sqe write_command(uint32_t nsid, uint64_t lba, uint32_t blocks, bool in_capsule = true) {
    nvme::sqe c = io_command(nvme::nvm_opcode::write, nsid, lba, blocks);
    if (in_capsule) c.dptr = nvme::sgl_descriptor::in_capsule(blocks * 512);
    return c;
}
inline nvme::sqe admin_command(nvme::admin_opcode opcode, uint32_t data_length = 0, uint32_t dw10 = 0,
                               uint32_t dw11 = 0) {
    nvme::sqe c = make_command(opcode);
    c.dptr = nvme::sgl_descriptor::by_transport(data_length);
    c.cdw10 = dw10;
    c.cdw11 = dw11;
    return c;
}
inline nvme::sqe log_command(nvme::log_page page, uint32_t bytes, bool retain = false) {
    nvme::sqe c = admin_command(nvme::admin_opcode::get_log_page, bytes);
    nvme::log_request{.id = page, .retain_event = retain, .length = bytes}.encode(c);
    return c;
}
inline nvme::sqe property_set(nvme::property which, uint64_t value) {
    nvme::property_set_command p{};
    p.opcode = nvme::raw(nvme::nvm_opcode::fabrics);
    p.type = nvme::raw(nvme::fabrics_type::property_set);
    p.offset = nvme::raw(which);
    p.value = value;
    return nvme::view_as<nvme::sqe>(p);
}
inline nvme::sqe property_get(nvme::property which, bool wide = false) {
    nvme::property_get_command p{};
    p.opcode = nvme::raw(nvme::nvm_opcode::fabrics);
    p.type = nvme::raw(nvme::fabrics_type::property_get);
    p.attributes = wide ? 1 : 0;
    p.offset = nvme::raw(which);
    return nvme::view_as<nvme::sqe>(p);
}
constexpr uint32_t enabled_configuration = 0x460001;

struct connect_wish {
    uint16_t qid = 0;
    uint16_t controller_id = 0xffff;
    uint16_t entries = 32;
    uint32_t keep_alive_ms = 0;
    uint8_t attributes = 0;
    std::string subnqn = "nqn.2016-06.io.spdk:cnode1";
    std::string hostnqn = "nqn.2014-08.org.nvmexpress:uuid:2d4f9f0e-2b3c-4a6f-9a51-3f5c0b6a7d11";
};
inline nvme::sqe connect_command(const connect_wish& wish) {
    nvme::connect_command c{};
    c.opcode = nvme::raw(nvme::nvm_opcode::fabrics);
    c.flags = 0x40;
    c.type = nvme::raw(nvme::fabrics_type::connect);
    c.dptr = nvme::sgl_descriptor::in_capsule(sizeof(nvme::connect_data));
    c.qid = wish.qid;
    c.sqsize = static_cast<uint16_t>(wish.entries - 1);
    c.attributes = wish.attributes;
    c.keep_alive_ms = wish.keep_alive_ms;
    return nvme::view_as<nvme::sqe>(c);
}
inline std::string connect_data_of(const connect_wish& wish) {
    nvme::connect_data d{};
    d.host_id[0] = 7;
    d.controller_id = wish.controller_id;
    std::memcpy(d.subnqn, wish.subnqn.data(), wish.subnqn.size());
    std::memcpy(d.hostnqn, wish.hostnqn.data(), wish.hostnqn.size());
    return bytes_of(d);
}

struct reply {
    nvme::cqe completion{};
    std::string data;
    bool left_out = false;  // the SUCCESS flag stood for the response
    nvme::status code() const { return completion.code(); }
    uint16_t cid() const { return completion.cid; }
    uint32_t dw0() const { return completion.cdw0; }
};

class test_host {
  public:
    explicit test_host(test_target& t, std::size_t group = 0) : _target(t), _group(group) {}
    test_host(const test_host&) = delete;

    wire line;
    uint16_t controller_id = 0;
    bool header_digest = false, data_digest = false;
    bool answer_r2t = true;  // else they are kept in `r2ts`
    std::deque<tcp::r2t> r2ts;
    uint32_t h2c_max = 128 << 10;  // data bytes in one H2CData

    // --- PDUs
    task<> open() {
        poll_group& g = _target.group(_group);
        co_await call_on(g.thread(), [&]() -> task<> {
            env::address peer{.host = "127.0.0.1", .port = 40000};
            tcp_connection::run(g, std::make_unique<fake_socket>(line, g.thread(), _target.at, peer),
                                _target.target->find_transport("TCP")->options());
            co_return;
        });
    }
    void send(std::string_view pdu) { line.write(pdu); }
    // The next whole PDU; an error when the connection ends before there is one.
    task<std::string> receive() {
        auto whole = [&] {
            return line.from_target.size() >= sizeof(tcp::common_header) &&
                   line.from_target.size() >= read_as<tcp::common_header>(line.from_target).plen;
        };
        co_await until([&] { return whole() || line.over; }, "a PDU of the target");
        if (!whole()) co_return fail(errc::reset, "the target has closed the connection");
        uint32_t length = read_as<tcp::common_header>(line.from_target).plen;
        std::string pdu = line.from_target.substr(0, length);
        line.from_target.erase(0, length);
        co_return pdu;
    }
    task<> until_closed() {
        co_await until([&] { return line.over; }, "the end of the connection");
    }
    static std::string ic_req(uint8_t digests = 0, uint8_t hpda = 0) {
        tcp::ic_req request{};
        request.ch = {.type = 0, .flags = 0, .hlen = sizeof request, .pdo = 0, .plen = sizeof request};
        request.hpda = hpda;
        request.dgst = digests;
        return bytes_of(request);
    }
    task<tcp::ic_resp> init(uint8_t digests = 0, uint8_t hpda = 0) {
        send(ic_req(digests, hpda));
        auto answer = read_as<tcp::ic_resp>(co_await receive());
        EXPECT_EQ(answer.ch.type, nvme::raw(tcp::pdu_type::ic_resp));
        header_digest = (answer.dgst & tcp::digest_enable::header) != 0;
        data_digest = (answer.dgst & tcp::digest_enable::data) != 0;
        co_return answer;
    }
    // A PDU with its digests. `data_at`: where data begins, when not at once.
    std::string seal(std::string header, std::string_view data, std::size_t data_at = 0) const {
        auto ch = read_as<tcp::common_header>(header);
        std::size_t end = header.size() + (header_digest ? 4 : 0);
        std::size_t offset = data.empty() ? 0 : std::max(data_at, end);
        ch.pdo = static_cast<uint8_t>(offset);
        ch.plen = static_cast<uint32_t>(data.empty() ? end : offset + data.size() + (data_digest ? 4 : 0));
        if (header_digest) ch.flags |= tcp::pdu_flag::header_digest;
        if (data_digest && !data.empty()) ch.flags |= tcp::pdu_flag::data_digest;
        std::memcpy(header.data(), &ch, sizeof ch);
        if (header_digest) header += digest_of(header);
        if (data.empty()) return header;
        header.resize(offset);
        header += data;
        if (data_digest) header += digest_of(data);
        return header;
    }
    std::string capsule(const nvme::sqe& c, std::string_view data = {}, std::size_t data_at = 0) const {
        tcp::capsule_cmd pdu{};
        pdu.ch = {.type = nvme::raw(tcp::pdu_type::capsule_cmd), .flags = 0, .hlen = sizeof pdu, .pdo = 0, .plen = 0};
        pdu.command = c;
        return seal(bytes_of(pdu), data, data_at);
    }
    std::string h2c_data(uint16_t cid, uint16_t tag, uint32_t offset, std::string_view data, bool last) const {
        tcp::h2c_data pdu{};
        pdu.ch = {.type = nvme::raw(tcp::pdu_type::h2c_data),
                  .flags = last ? tcp::pdu_flag::last : uint8_t{0},
                  .hlen = sizeof pdu,
                  .pdo = 0,
                  .plen = 0};
        pdu.cccid = cid;
        pdu.ttag = tag;
        pdu.datao = offset;
        pdu.datal = static_cast<uint32_t>(data.size());
        return seal(bytes_of(pdu), data);
    }

    // --- commands
    static bool carries_capsule_data(const nvme::sqe& c) {
        return c.dptr.type() == nvme::sgl_type::data_block && c.dptr.length != 0;
    }
    // Sends it; its data goes with it, or is kept until it is asked for. Gives the command's identifier.
    uint16_t submit(nvme::sqe c, std::string data = {}) {
        c.cid = _next_cid++;
        bool inside = carries_capsule_data(c);
        send(capsule(c, inside ? data : std::string_view{}));
        if (!inside) _outgoing[c.cid] = std::move(data);
        return c.cid;
    }
    // Answers what is asked of the host on the way.
    task<reply> next_reply() {
        if (!_replies.empty()) {
            reply r = std::move(_replies.front());
            _replies.pop_front();
            co_return r;
        }
        while (true) {
            std::string pdu = co_await receive();
            switch (static_cast<tcp::pdu_type>(pdu[0])) {
                case tcp::pdu_type::r2t:
                    on_r2t(pdu);
                    break;
                case tcp::pdu_type::c2h_data:
                    if (auto done = on_data(pdu)) co_return std::move(*done);
                    break;
                case tcp::pdu_type::capsule_resp: {
                    auto pdu_read = read_as<tcp::capsule_resp>(pdu);
                    check_header_digest(pdu, sizeof pdu_read);
                    reply r{.completion = pdu_read.completion, .data = std::move(_incoming[pdu_read.completion.cid])};
                    _incoming.erase(r.cid());
                    co_return r;
                }
                default:
                    co_return fail(errc::bad_message, "PDU of type " + std::to_string(pdu[0]));
            }
        }
    }
    task<reply> reply_to(uint16_t cid) {
        for (std::size_t i = 0; i < _replies.size(); ++i) {
            if (_replies[i].cid() != cid) continue;
            reply r = std::move(_replies[i]);
            _replies.erase(_replies.begin() + static_cast<std::ptrdiff_t>(i));
            co_return r;
        }
        std::deque<reply> others = std::exchange(_replies, {});
        while (true) {
            reply r = co_await next_reply();
            if (r.cid() == cid) {
                _replies = std::move(others);
                co_return r;
            }
            others.push_back(std::move(r));
        }
    }
    task<reply> command(nvme::sqe c, std::string data = {}) {
        uint16_t cid = submit(c, std::move(data));
        co_return co_await reply_to(cid);
    }
    task<nvme::status> status_of(nvme::sqe c, std::string data = {}) {
        reply r = co_await command(c, std::move(data));
        co_return r.code();
    }

    // --- from nothing to a queue
    task<reply> associate(connect_wish wish, uint8_t digests = 0, uint8_t hpda = 0) {
        co_await open();
        co_await init(digests, hpda);
        reply r = co_await command(connect_command(wish), connect_data_of(wish));
        if (r.code() == nvme::status::success) controller_id = static_cast<uint16_t>(r.dw0());
        co_return r;
    }
    task<> connect(connect_wish wish = {}, uint8_t digests = 0, uint8_t hpda = 0) {
        reply r = co_await associate(wish, digests, hpda);
        if (r.code() != nvme::status::success) co_await fail(errc::refused, "Connect of an admin queue");
        r = co_await command(property_set(nvme::property::cc, enabled_configuration));
        if (r.code() != nvme::status::success) co_await fail(errc::refused, "enabling the controller");
    }
    task<> connect_io(uint16_t controller, connect_wish wish = {.qid = 1}, uint8_t digests = 0, uint8_t hpda = 0) {
        wish.controller_id = controller;
        reply r = co_await associate(wish, digests, hpda);
        if (r.code() != nvme::status::success) co_await fail(errc::refused, "Connect of an I/O queue");
    }

  private:
    void check_header_digest(std::string_view pdu, std::size_t size) const {
        if (header_digest) EXPECT_EQ(pdu.substr(size, 4), digest_of(pdu.substr(0, size)));
    }
    void on_r2t(std::string_view bytes) {
        auto pdu = read_as<tcp::r2t>(bytes);
        check_header_digest(bytes, sizeof pdu);
        if (!answer_r2t) return r2ts.push_back(pdu);
        answer(pdu);
    }

  public:
    void answer(const tcp::r2t& pdu) {
        std::string_view data = std::string_view(_outgoing[pdu.cccid]).substr(pdu.r2to, pdu.r2tl);
        for (std::size_t at = 0; at < data.size();) {
            std::string_view part = data.substr(at, h2c_max);
            send(h2c_data(pdu.cccid, pdu.ttag, static_cast<uint32_t>(pdu.r2to + at), part,
                          at + part.size() == data.size()));
            at += part.size();
        }
    }

  private:
    std::optional<reply> on_data(std::string_view bytes) {
        auto pdu = read_as<tcp::c2h_data>(bytes);
        check_header_digest(bytes, sizeof pdu);
        std::string_view data = bytes.substr(pdu.ch.pdo, pdu.datal);
        EXPECT_EQ(data.size(), pdu.datal);
        if (data_digest) EXPECT_EQ(bytes.substr(pdu.ch.pdo + pdu.datal), digest_of(data));
        _incoming[pdu.cccid] += data;
        if ((pdu.ch.flags & tcp::pdu_flag::success) == 0) return std::nullopt;
        reply r{.data = std::move(_incoming[pdu.cccid]), .left_out = true};
        r.completion.cid = pdu.cccid;
        _incoming.erase(pdu.cccid);
        return r;
    }

    test_target& _target;
    const std::size_t _group;
    uint16_t _next_cid = 0;
    std::map<uint16_t, std::string> _outgoing, _incoming;
    std::deque<reply> _replies;
};

}  // namespace varve::targets::nvmf::protocol_tests
