// The fake target's body. It is in a test file so that it stays out of the library.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "accel/crc32c.h"
#include "nvme/host/fake_target.h"
#include "nvme/host/request.h"
#include "nvme/text.h"
#include "thread/awaits.h"

namespace varve::nvme::host {

namespace {

using tcp::pdu_type;
namespace pdu_flag = tcp::pdu_flag;

template <class T>
T read_as(const std::string& bytes, std::size_t at = 0) {
    T value{};
    EXPECT_LE(at + sizeof(T), bytes.size());
    if (at + sizeof(T) <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof(T));
    return value;
}

template <class T>
std::string bytes_of(const T& value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string digest_of(std::string_view bytes) { return bytes_of(le32(accel::crc32c(std::as_bytes(std::span(bytes))))); }

struct owned_send : env::send_op {
    explicit owned_send(std::string what) : bytes(std::move(what)), piece{bytes.data(), bytes.size()} {
        iov = &piece;
        iov_count = 1;
        done = [](env::send_op& op) noexcept { delete static_cast<owned_send*>(&op); };
    }
    std::string bytes;
    iovec piece;
};

}  // namespace

fake_connection::fake_connection(fake_target& owner, std::unique_ptr<env::socket> socket)
    : _target(owner), _socket(std::move(socket)) {
    _socket->start(*this);
}

void fake_connection::send_raw(std::string bytes) { _socket->send(*new owned_send(std::move(bytes))); }

std::string fake_connection::header_of(const void* pdu, std::size_t size, uint8_t data_at) {
    std::string bytes(static_cast<const char*>(pdu), size);
    if (header_digest) bytes += digest_of(bytes);
    if (data_at > bytes.size()) bytes.resize(data_at);
    return bytes;
}

void fake_connection::send_pdu(std::string header, std::string_view data) {
    header += data;
    if (data_digest && !data.empty()) header += digest_of(data);
    send_raw(std::move(header));
}

void fake_connection::respond(uint16_t cid, status s, uint32_t dw0) {
    tcp::capsule_resp pdu{};
    pdu.ch = {.type = raw(pdu_type::capsule_resp),
              .flags = header_digest ? pdu_flag::header_digest : uint8_t{0},
              .hlen = sizeof pdu,
              .pdo = 0,
              .plen = static_cast<uint32_t>(sizeof pdu + (header_digest ? 4 : 0))};
    pdu.completion.cdw0 = dw0;
    pdu.completion.cid = cid;
    pdu.completion.status_field = make_status(s);
    send_raw(header_of(&pdu, sizeof pdu));
}

void fake_connection::send_data(uint16_t cid, std::string_view data, uint32_t offset, uint8_t flags) {
    tcp::c2h_data pdu{};
    const auto at =
        static_cast<uint8_t>(tcp::data_offset(sizeof pdu, header_digest, 0) + _target.options.extra_padding);
    pdu.ch = {.type = raw(pdu_type::c2h_data),
              .flags = static_cast<uint8_t>(flags | (header_digest ? pdu_flag::header_digest : 0) |
                                            (data_digest ? pdu_flag::data_digest : 0)),
              .hlen = sizeof pdu,
              .pdo = at,
              .plen = tcp::pdu_length(at, static_cast<uint32_t>(data.size()), data_digest)};
    pdu.cccid = cid;
    pdu.datao = offset;
    pdu.datal = static_cast<uint32_t>(data.size());
    send_pdu(header_of(&pdu, sizeof pdu, at), data);
}

void fake_connection::send_r2t(uint16_t cid, uint16_t tag, uint32_t offset, uint32_t length) {
    tcp::r2t pdu{};
    pdu.ch = {.type = raw(pdu_type::r2t),
              .flags = header_digest ? pdu_flag::header_digest : uint8_t{0},
              .hlen = sizeof pdu,
              .pdo = 0,
              .plen = static_cast<uint32_t>(sizeof pdu + (header_digest ? 4 : 0))};
    pdu.cccid = cid;
    pdu.ttag = tag;
    pdu.r2to = offset;
    pdu.r2tl = length;
    send_raw(header_of(&pdu, sizeof pdu));
}

std::size_t fake_connection::on_data(std::span<const std::byte> bytes) noexcept {
    _received.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    while (_received.size() >= sizeof(tcp::common_header)) {
        const auto ch = read_as<tcp::common_header>(_received);
        if (_received.size() < ch.plen) break;
        const std::string pdu = _received.substr(0, ch.plen);
        _received.erase(0, ch.plen);
        on_pdu(pdu);
    }
    return bytes.size();
}

void fake_connection::on_closed(int) noexcept {
    _socket.reset();
    std::erase_if(_target._connections, [this](auto& one) { return one.get() == this; });
}

void fake_connection::on_pdu(const std::string& pdu) {
    const auto ch = read_as<tcp::common_header>(pdu);
    const auto type = static_cast<pdu_type>(ch.type);
    EXPECT_EQ(ch.hlen, tcp::header_length(type));
    if (type == pdu_type::ic_req) return on_ic_req(read_as<tcp::ic_req>(pdu));
    if (type == pdu_type::h2c_term_req) {
        ++_target.seen["term"];
        _target.last_term = read_as<tcp::term_req>(pdu);
        EXPECT_LE(pdu.size(), tcp::term_pdu_max);
        return _socket->close();
    }
    EXPECT_TRUE(_ready);
    EXPECT_EQ((ch.flags & pdu_flag::header_digest) != 0, header_digest);
    if (header_digest) EXPECT_EQ(pdu.substr(ch.hlen, 4), digest_of(pdu.substr(0, ch.hlen)));
    if (type == pdu_type::capsule_cmd) return on_capsule(pdu);
    if (type == pdu_type::h2c_data) return on_h2c(pdu);
    ADD_FAILURE() << "a PDU of type " << static_cast<int>(ch.type);
}

void fake_connection::on_ic_req(const tcp::ic_req& pdu) {
    EXPECT_FALSE(_ready);
    EXPECT_EQ(pdu.ch.plen, sizeof pdu);
    if (_target.ignore_ic) return;
    if (!_target.ic_answer.empty()) return send_raw(_target.ic_answer);
    header_digest = _target.options.header_digest && (pdu.dgst & tcp::digest_enable::header) != 0;
    data_digest = _target.options.data_digest && (pdu.dgst & tcp::digest_enable::data) != 0;
    tcp::ic_resp answer{};
    answer.ch = {.type = raw(pdu_type::ic_resp), .flags = 0, .hlen = sizeof answer, .pdo = 0, .plen = sizeof answer};
    answer.cpda = _target.options.cpda;
    answer.dgst = static_cast<uint8_t>((header_digest ? 1 : 0) | (data_digest ? 2 : 0));
    answer.maxh2cdata = _target.options.maxh2cdata;
    _ready = true;
    send_raw(bytes_of(answer));
}

// Checks where the data lies and its digest, and gives it.
std::string fake_connection::payload(const std::string& pdu, uint32_t length) {
    const auto ch = read_as<tcp::common_header>(pdu);
    EXPECT_EQ((ch.flags & pdu_flag::data_digest) != 0, data_digest);
    EXPECT_EQ(ch.pdo, tcp::data_offset(ch.hlen, header_digest, _target.options.cpda));
    EXPECT_EQ(pdu.size(), tcp::pdu_length(ch.pdo, length, data_digest));
    std::string data = pdu.substr(ch.pdo, length);
    if (data_digest) EXPECT_EQ(pdu.substr(ch.pdo + length), digest_of(data));
    return data;
}

void fake_connection::on_capsule(const std::string& pdu) {
    const sqe c = read_as<sqe>(pdu, sizeof(tcp::common_header));
    EXPECT_EQ(c.psdt(), data_pointer::sgl);
    const uint32_t length = c.dptr.length;
    if (c.dptr.subtype() == sgl_subtype::offset) {
        ++_target.seen["in capsule"];
        return execute(c, payload(pdu, length));
    }
    EXPECT_EQ(pdu.size(), sizeof(tcp::capsule_cmd) + (header_digest ? 4 : 0));
    if (host::direction_of(c) != data_direction::to_controller || length == 0) return execute(c, {});
    if (_target.on_capsule && _target.on_capsule(*this, c, {})) return;
    pending& p = _pending[c.cid];
    p = {.command = c, .data = std::string(length, 0)};
    ask_for_data(c.cid, p);
}

void fake_connection::ask_for_data(uint16_t cid, pending& p) {
    const auto left = static_cast<uint32_t>(p.data.size()) - p.asked;
    const uint32_t now = std::min(left, _target.options.r2t_max);
    p.r2t_end = p.asked + now;
    ++_target.seen["r2t"];
    send_r2t(cid, static_cast<uint16_t>(cid ^ 0x5555), p.asked, now);
    p.asked += now;
}

void fake_connection::on_h2c(const std::string& pdu) {
    const auto head = read_as<tcp::h2c_data>(pdu);
    ++_target.seen["h2c"];
    auto at = _pending.find(head.cccid);
    if (at == _pending.end()) return;  // a hook has answered it
    pending& p = at->second;
    EXPECT_EQ(head.ttag, head.cccid ^ 0x5555);
    EXPECT_EQ(head.datao, p.received);
    EXPECT_LE(head.datal, _target.options.maxh2cdata);
    EXPECT_LE(head.datao + head.datal, p.r2t_end);
    const std::string data = payload(pdu, head.datal);
    p.data.replace(head.datao, head.datal, data);
    p.received += head.datal;
    EXPECT_EQ((head.ch.flags & pdu_flag::last) != 0, p.received == p.r2t_end);
    if (p.received != p.r2t_end) return;
    if (p.asked < p.data.size()) return ask_for_data(head.cccid, p);
    const pending done = std::move(p);
    _pending.erase(at);
    execute(done.command, done.data);
}

void fake_connection::execute(const sqe& c, std::string data) {
    const bool is_fabrics = c.opcode == raw(admin_opcode::fabrics);
    ++_target.seen[std::string(opcode_text(c.opcode, qid == 0))];
    if (_target.on_command && _target.on_command(*this, c, data)) return;
    if (is_fabrics) return fabrics(c, data);
    if (qid == 0) return admin(c);
    io(c, data);
}

void fake_connection::fabrics(const sqe& c, const std::string& data) {
    switch (static_cast<fabrics_type>(c.nsid & 0xff)) {
        case fabrics_type::connect: {
            const auto connect = view_as<connect_command>(c);
            const auto who = read_as<connect_data>(data);
            qid = connect.qid;
            EXPECT_EQ(who.controller_id, qid == 0 ? 0xffff : 7);
            EXPECT_EQ(connect.keep_alive_ms != 0, qid == 0 && connect.keep_alive_ms != 0);
            return respond(c.cid, status::success, 7);
        }
        case fabrics_type::property_get: {
            const auto get = view_as<property_get_command>(c);
            const controller_capabilities cap{
                .queue_entries_max = 127, .ready_timeout_500ms = 10, .command_sets = css_nvm};
            const bool on = (_cc & 1) != 0;
            const bool off = controller_configuration::decode(_cc).shutdown != 0;
            tcp::capsule_resp pdu{};
            if (get.offset == raw(property::csts))
                return respond(c.cid, status::success, (on ? csts::ready : 0) | (off ? csts::shutdown_complete : 0));
            EXPECT_EQ(get.offset, raw(property::cap));
            EXPECT_EQ(get.attributes, 1);
            pdu.ch = {.type = raw(pdu_type::capsule_resp),
                      .flags = header_digest ? pdu_flag::header_digest : uint8_t{0},
                      .hlen = sizeof pdu,
                      .pdo = 0,
                      .plen = static_cast<uint32_t>(sizeof pdu + (header_digest ? 4 : 0))};
            pdu.completion.cdw0 = static_cast<uint32_t>(cap.encode());
            pdu.completion.cdw1 = static_cast<uint32_t>(cap.encode() >> 32);
            pdu.completion.cid = c.cid;
            return send_raw(header_of(&pdu, sizeof pdu));
        }
        case fabrics_type::property_set: {
            const auto set = view_as<property_set_command>(c);
            EXPECT_EQ(set.offset, raw(property::cc));
            _cc = static_cast<uint32_t>(set.value);
            return respond(c.cid, status::success);
        }
        default:
            return respond(c.cid, status::invalid_field);
    }
}

void fake_connection::answer_with(uint16_t cid, std::string data) {
    for (std::size_t at = 0; at < data.size();) {
        const std::string_view now = std::string_view(data).substr(at, _target.options.c2h_max);
        const bool last = at + now.size() == data.size();
        const uint8_t flags =
            last ? (_target.options.success_flag ? pdu_flag::last | pdu_flag::success : pdu_flag::last) : 0;
        send_data(cid, now, static_cast<uint32_t>(at), flags);
        at += now.size();
    }
    if (!_target.options.success_flag) respond(cid, status::success);
}

std::string fake_connection::identify(const sqe& c, bool& known) {
    std::string page(identify_size, 0);
    const auto fill = [&page](const auto& value) { std::memcpy(page.data(), &value, sizeof value); };
    auto at = _target.namespaces.find(c.nsid);
    const bool found = at != _target.namespaces.end();
    known = true;
    switch (static_cast<cns>(c.cdw10 & 0xff)) {
        case cns::controller: {
            auto data = std::make_unique<identify_controller>();
            *data = {};
            data->mdts = _target.options.mdts;
            data->aerl = 3;
            data->oaes = event_mask::namespace_attribute;
            data->ioccsz = (_target.options.in_capsule + 64) / 16;
            data->iorcsz = 1;
            data->kas = 10;
            fill(*data);
            break;
        }
        case cns::active_namespace_list: {
            std::size_t n = 0;
            for (auto& [id, one] : _target.namespaces) {
                const le32 wire = id;
                if (id > c.nsid && n < 1024) std::memcpy(page.data() + 4 * n++, &wire, 4);
            }
            break;
        }
        case cns::active_namespace: {
            if (!found) break;
            auto data = std::make_unique<identify_namespace>();
            *data = {};
            data->nsze = data->ncap = data->nuse = at->second.blocks();
            data->lbaf[0].data_shift = at->second.block_shift;
            fill(*data);
            break;
        }
        case cns::namespace_descriptors: {
            const namespace_descriptor head{.type = raw(namespace_id_type::uuid), .length = 16, .reserved2 = {}};
            fill(head);
            std::memset(page.data() + sizeof head, static_cast<int>(c.nsid), 16);
            break;
        }
        default:
            known = false;
    }
    return page;
}

std::string fake_connection::log(const sqe& c) {
    const log_request what = log_request::decode(c);
    std::string page;
    if (what.id == log_page::changed_namespaces) {
        for (uint32_t id : std::exchange(_target.changed, {})) page += bytes_of(le32(id));
    } else if (what.id == log_page::discovery) {
        discovery_header head{};
        head.generation = _target.discovery_generation;
        head.record_count = _target.discovery.size();
        page = bytes_of(head);
        for (const discovery_entry& each : _target.discovery) page += bytes_of(each);
    }
    page.resize(std::max<std::size_t>(page.size(), what.offset + what.length));
    return page.substr(what.offset, what.length);
}

void fake_connection::admin(const sqe& c) {
    switch (static_cast<admin_opcode>(c.opcode)) {
        case admin_opcode::identify: {
            bool known = false;
            std::string page = identify(c, known);
            return known ? answer_with(c.cid, std::move(page)) : respond(c.cid, status::invalid_field);
        }
        case admin_opcode::get_log_page:
            return answer_with(c.cid, log(c));
        case admin_opcode::set_features: {
            const bool queues = (c.cdw10 & 0xff) == raw(feature::number_of_queues);
            const auto granted = number_of_queues(_target.options.queues, _target.options.queues);
            return respond(c.cid, status::success, queues ? granted : 0);
        }
        case admin_opcode::keep_alive:
            return respond(c.cid, status::success);
        case admin_opcode::async_event_request:
            _events.push_back(c.cid);
            return;
        default:
            return respond(c.cid, status::invalid_opcode);
    }
}

void fake_connection::io(const sqe& c, const std::string& data) {
    auto at = _target.namespaces.find(c.nsid);
    if (at == _target.namespaces.end()) return respond(c.cid, status::invalid_namespace_or_format);
    std::string& disk = at->second.bytes;
    const uint8_t shift = at->second.block_shift;
    const auto opcode = static_cast<nvm_opcode>(c.opcode);
    const uint64_t from = c.slba() << shift, size = static_cast<uint64_t>(c.blocks()) << shift;
    const bool has_range = opcode == nvm_opcode::read || opcode == nvm_opcode::write || opcode == nvm_opcode::compare ||
                           opcode == nvm_opcode::write_zeroes;
    if (has_range && (from > disk.size() || size > disk.size() - from)) return respond(c.cid, status::lba_out_of_range);
    switch (opcode) {
        case nvm_opcode::read:
            EXPECT_EQ(c.dptr.length, size);
            return answer_with(c.cid, disk.substr(from, size));
        case nvm_opcode::write:
            EXPECT_EQ(data.size(), size);
            if (c.fused() == fuse::second && std::exchange(_compare_failed, false))
                return respond(c.cid, status::aborted_failed_fused);
            disk.replace(from, size, data);
            return respond(c.cid, status::success);
        case nvm_opcode::compare: {
            const bool same = disk.compare(from, size, data) == 0;
            if (c.fused() == fuse::first) _compare_failed = !same;
            return respond(c.cid, same ? status::success : status::compare_failure);
        }
        case nvm_opcode::write_zeroes:
            std::memset(disk.data() + from, 0, size);
            return respond(c.cid, status::success);
        case nvm_opcode::dataset_management:
            EXPECT_EQ(data.size(), sizeof(dsm_range) * ((c.cdw10 & 0xff) + 1));
            for (std::size_t i = 0; i < data.size() / sizeof(dsm_range); ++i) {
                const auto r = read_as<dsm_range>(data, i * sizeof(dsm_range));
                std::memset(disk.data() + (r.slba << shift), 0, static_cast<std::size_t>(r.blocks) << shift);
            }
            return respond(c.cid, status::success);
        case nvm_opcode::flush:
            return respond(c.cid, status::success);
        default:
            return respond(c.cid, status::invalid_opcode);
    }
}

fake_target::fake_target(env::loop& on, fake_options with) : options(with) {
    auto made = on.listen({env::address::family::ipv4, "127.0.0.1", 0}, *this);
    if (!made) {
        ADD_FAILURE() << made.error().message();
        std::abort();
    }
    _listener = std::move(*made);
}

fake_target::~fake_target() { EXPECT_TRUE(_connections.empty()); }

task<> fake_target::stop() {
    _listener.reset();
    for (auto& one : _connections) one->close();
    while (!_connections.empty()) co_await sleep(100 * microseconds);
}

void fake_target::on_accept(std::unique_ptr<env::socket> connection) noexcept {
    _connections.push_back(std::make_unique<fake_connection>(*this, std::move(connection)));
}

fake_connection* fake_target::admin_queue() {
    auto at = std::ranges::find_if(_connections, [](auto& one) { return one->qid == 0; });
    return at == _connections.end() ? nullptr : at->get();
}

void fake_target::raise(async_event event) {
    fake_connection* admin = admin_queue();
    ASSERT_NE(admin, nullptr);
    ASSERT_FALSE(admin->_events.empty());
    const uint16_t cid = admin->_events.back();
    admin->_events.pop_back();
    admin->respond(cid, status::success, event.encode());
}

}  // namespace varve::nvme::host
