// NVMe/TCP receive: from bytes to commands. See tcp_connection.h.
#include <algorithm>
#include <cstring>

#include "accel/crc32c.h"
#include "env/system.h"
#include "targets/nvmf/target.h"
#include "targets/nvmf/tcp_connection.h"

namespace varve::targets::nvmf {

namespace tcp = nvme::tcp;
using nvme::data_direction;
using tcp::fatal_error;
using tcp::pdu_type;

namespace {

template <class Pdu>
const Pdu& as(std::span<const std::byte> header) noexcept {
    return *reinterpret_cast<const Pdu*>(header.data());
}

bool carries_digests(pdu_type type) noexcept { return type == pdu_type::capsule_cmd || type == pdu_type::h2c_data; }

constexpr uint32_t admin_capsule_data =
    8192;  // an admin queue takes Connect's data in the capsule whatever is configured

}  // namespace

std::size_t tcp_connection::on_data(std::span<const std::byte> bytes) noexcept {
    thread::entered in(group.thread());
    std::size_t used = 0;
    while (used < bytes.size()) {
        std::size_t taken = 0;
        switch (_rx) {
            case rx::header:
                taken = parse_header(bytes.subspan(used));
                break;
            case rx::data:
                taken = take_data(bytes.subspan(used));
                break;
            case rx::digest:
                taken = take_digest(bytes.subspan(used));
                break;
            case rx::ended:
                return bytes.size();
        }
        if (taken == 0) {  // no slot or no buffer: release() or buffer_ready() resumes
            _paused = true;
            break;
        }
        used += taken;
    }
    if (_receiving != nullptr) await_data();
    return used;
}

// The bytes before a PDU's data: header, its digest, padding.
std::size_t tcp_connection::header_size(const tcp::common_header& ch) const noexcept {
    auto type = static_cast<pdu_type>(ch.type);
    std::size_t size = ch.hlen + (_header_digest && carries_digests(type) ? tcp::digest_size : 0u);
    if (carries_digests(type) && ch.plen.get() > size) size = std::max<std::size_t>(size, ch.pdo);
    return size;
}

std::size_t tcp_connection::parse_header(std::span<const std::byte> bytes) noexcept {
    constexpr std::size_t common = sizeof(tcp::common_header);
    std::span<const std::byte> header = bytes;
    std::size_t taken = 0;
    if (_partial_size != 0 || bytes.size() < common) {
        if (_partial_size < common) {
            taken = std::min(common - _partial_size, bytes.size());
            std::memcpy(_partial.data() + _partial_size, bytes.data(), taken);
            _partial_size += static_cast<uint16_t>(taken);
            if (_partial_size < common) return taken;
            if (!check_common(_partial)) return taken;
        }
        header = _partial;
    } else if (!check_common(bytes)) {
        return bytes.size();
    }
    const auto& ch = as<tcp::common_header>(header);
    std::size_t need = header_size(ch);
    if (static_cast<pdu_type>(ch.type) == pdu_type::capsule_cmd && _free == nullptr) return taken;
    if (_partial_size != 0 || bytes.size() < need) {  // gather it, except where it is whole already
        std::size_t more = std::min(need - _partial_size, bytes.size() - taken);
        std::memcpy(_partial.data() + _partial_size, bytes.data() + taken, more);
        _partial_size += static_cast<uint16_t>(more);
        taken += more;
        if (_partial_size < need) return taken;
        _partial_size = 0;
        handle_pdu({_partial.data(), need});
        return taken;
    }
    handle_pdu(bytes.first(need));
    return need;
}

bool tcp_connection::check_common(std::span<const std::byte> header) noexcept {
    const auto& ch = as<tcp::common_header>(header);
    header = header.first(sizeof(ch));
    auto type = static_cast<pdu_type>(ch.type);
    auto wrong = [&](fatal_error why, uint32_t field) {
        terminate(why, field, header);
        return false;
    };
    bool from_host = type == pdu_type::ic_req || type == pdu_type::h2c_term_req || carries_digests(type);
    if (!from_host) return wrong(fatal_error::invalid_header_field, offsetof(tcp::common_header, type));
    if ((type == pdu_type::ic_req) == _initialized && type != pdu_type::h2c_term_req)
        return wrong(fatal_error::sequence_error, 0);
    if (ch.hlen != tcp::header_length(type))
        return wrong(fatal_error::invalid_header_field, offsetof(tcp::common_header, hlen));
    uint32_t length = ch.plen, fixed = ch.hlen;
    bool length_ok = true;
    if (type == pdu_type::ic_req) {
        length_ok = length == fixed;
    } else if (type == pdu_type::h2c_term_req) {
        length_ok = length >= fixed && length <= tcp::term_pdu_max;
    } else {
        if (_header_digest) fixed += tcp::digest_size;
        bool has_data = length > fixed;
        // What the flags say is there, and what was agreed to be, decide where everything lies.
        uint8_t digests = has_data ? tcp::pdu_flag::header_digest | tcp::pdu_flag::data_digest
                                   : uint8_t{tcp::pdu_flag::header_digest};
        if (((ch.flags ^ _digest_flags) & digests) != 0)
            return wrong(fatal_error::invalid_header_field, offsetof(tcp::common_header, flags));
        if (has_data && (ch.pdo < fixed || ch.pdo % 4 != 0))
            return wrong(fatal_error::invalid_header_field, offsetof(tcp::common_header, pdo));
        uint32_t most = type == pdu_type::h2c_data
                            ? _options.max_io_size
                            : std::max(_options.in_capsule_data_size, id == 0 ? admin_capsule_data : 0u);
        uint32_t around = ch.pdo + (_data_digest ? tcp::digest_size : 0);
        length_ok = has_data ? length > around : length == fixed && type == pdu_type::capsule_cmd;
        // MAXH2CDATA of our ICResp, and the capsule size of Identify.
        if (has_data && length_ok && length - around > most) return wrong(fatal_error::limit_exceeded, 0);
    }
    if (!length_ok) return wrong(fatal_error::invalid_header_field, offsetof(tcp::common_header, plen));
    return true;
}

bool tcp_connection::check_header_digest(std::span<const std::byte> header) noexcept {
    const auto& ch = as<tcp::common_header>(header);
    if (!_header_digest || !carries_digests(static_cast<pdu_type>(ch.type))) return true;
    uint32_t said = as<le32>(header.subspan(ch.hlen)).get();
    if (accel::crc32c(header.first(ch.hlen)) == said) return true;
    terminate(fatal_error::header_digest_error, said, header.first(ch.hlen));
    return false;
}

void tcp_connection::handle_pdu(std::span<const std::byte> header) noexcept {
    if (!check_header_digest(header)) return;
    switch (static_cast<pdu_type>(as<tcp::common_header>(header).type)) {
        case pdu_type::capsule_cmd:
            return handle_command(header);
        case pdu_type::h2c_data:
            return handle_h2c_data(header);
        case pdu_type::ic_req:
            return handle_ic_req(header);
        default:  // H2CTermReq: the host has given up, and says why to nobody's use
            _rx = rx::ended;
            return disconnect();
    }
}

// TCP 3.6.2.2, 3.6.2.3
void tcp_connection::handle_ic_req(std::span<const std::byte> header) noexcept {
    const auto& request = as<tcp::ic_req>(header);
    if (request.pfv != tcp::format_version)
        return terminate(fatal_error::unsupported_parameter, offsetof(tcp::ic_req, pfv), header);
    if (request.hpda > tcp::pda_max)
        return terminate(fatal_error::invalid_header_field, offsetof(tcp::ic_req, hpda), header);
    tcp::ic_resp response{};
    response.ch = {
        .type = nvme::raw(pdu_type::ic_resp), .flags = 0, .hlen = sizeof response, .pdo = 0, .plen = sizeof response};
    response.pfv = tcp::format_version;
    response.dgst = request.dgst & (tcp::digest_enable::header | tcp::digest_enable::data);
    response.maxh2cdata = _options.max_io_size;
    _hpda = request.hpda;
    _initialized = true;
    queue_control({reinterpret_cast<const std::byte*>(&response), sizeof response});
    // From the next PDU on.
    _header_digest = (response.dgst & tcp::digest_enable::header) != 0;
    _data_digest = (response.dgst & tcp::digest_enable::data) != 0;
    static_assert(tcp::digest_enable::header == tcp::pdu_flag::header_digest &&
                  tcp::digest_enable::data == tcp::pdu_flag::data_digest);
    _digest_flags = response.dgst;
}

nvme::status tcp_connection::describe_data(slot& s, uint32_t capsule_bytes) noexcept {
    const nvme::sqe& command = s.command;
    uint8_t code = command.opcode;
    if (code == nvme::raw(nvme::nvm_opcode::fabrics))
        code = static_cast<uint8_t>(command.nsid.get());  // FCTYPE is byte 4
    data_direction way = nvme::direction_of(code);
    s.to_host = way == data_direction::to_host;
    if (way == data_direction::none || way == data_direction::both) return nvme::status::success;
    uint32_t length = command.dptr.length;
    nvme::sgl_type type = command.dptr.type();
    bool in_capsule = type == nvme::sgl_type::data_block && command.dptr.subtype() == nvme::sgl_subtype::offset;
    bool by_transport =
        type == nvme::sgl_type::transport_data_block && command.dptr.subtype() == nvme::sgl_subtype::transport;
    if (length == 0) return nvme::status::success;
    if (in_capsule && way == data_direction::to_controller) {
        uint64_t offset = command.dptr.address;
        if (offset > capsule_bytes) return nvme::status::invalid_sgl_offset;
        if (length > capsule_bytes - offset) return nvme::status::data_sgl_length_invalid;
        s.in_capsule = true;
        s.data.iov_base = reinterpret_cast<void*>(offset);  // becomes an address when there is a buffer
    } else if (by_transport) {
        if (length > _options.max_io_size) return nvme::status::invalid_field;  // Base 5.17.2.1, MDTS
    } else {
        return nvme::status::sgl_type_invalid;
    }
    s.data_length = length;
    return nvme::status::success;
}

// TCP 3.6.2.6
void tcp_connection::handle_command(std::span<const std::byte> header) noexcept {
    const auto& pdu = as<tcp::capsule_cmd>(header);
    slot& s = *take_slot();
    s.command = pdu.command;
    uint32_t overhead = static_cast<uint32_t>(header.size()) + (_data_digest ? tcp::digest_size : 0);
    uint32_t capsule_bytes = pdu.ch.plen > header.size() ? pdu.ch.plen - overhead : 0;
    if (id != 0 && (is_fused(s) || fused_first != nullptr || fused_lost)) [[unlikely]]
        fused_arrived(s);
    nvme::status wrong = describe_data(s, capsule_bytes);
    if (capsule_bytes != 0) expect_data(s.in_capsule && wrong == nvme::status::success ? &s : nullptr, capsule_bytes);
    if (wrong != nvme::status::success) return fail(s, wrong);
    if (s.data_length == 0) {
        s.state = slot_state::executing;
        return execute(s);
    }
    get_buffer(s, s.in_capsule ? capsule_bytes : s.data_length);
}

void tcp_connection::get_buffer(slot& s, uint32_t bytes) noexcept {
    s.buffer = group.buffers().try_get(bytes);
    if (s.buffer) [[likely]] {
        s.memory = s.buffer.data();
        return buffer_ready(s);
    }
    if (s.in_capsule && take_spare(s)) return buffer_ready(s);
    s.state = slot_state::waiting_for_buffer;
    ++group.stats.pending_data_buffer;
    s.wait.owner = &s;
    s.wait.run = [](work& w) noexcept {
        slot& waiter = *static_cast<slot*>(static_cast<thread::buffer_wait&>(w).owner);
        waiter.buffer = std::move(waiter.wait.buffer);
        waiter.memory = waiter.buffer.data();
        if (waiter.connection->_closing) return waiter.connection->release(waiter);
        waiter.connection->buffer_ready(waiter);
    };
    group.buffers().wait(s.wait, bytes);
}

bool tcp_connection::take_spare(slot& s) noexcept {
    const std::size_t size = std::max<std::size_t>(_options.in_capsule_data_size, admin_capsule_data);
    for (unsigned i = 0; i < _spares.size(); ++i) {
        if ((_spares_used >> i & 1) != 0) continue;
        if (!_spares[i]) {
            auto made = group.owner().system().world().mem().allocate(size);
            if (!made) return false;
            _spares[i] = std::move(*made);
        }
        _spares_used |= 1u << i;
        s.spare = &_spares[i];
        s.memory = _spares[i].data();
        return true;
    }
    return false;
}

// The slot that keeps the stream waiting gets it.
void tcp_connection::spare_returned() noexcept {
    slot* s = _receiving;
    if (s == nullptr || s->state != slot_state::waiting_for_buffer || !group.buffers().cancel(s->wait)) return;
    if (take_spare(*s)) buffer_ready(*s);
}

// The slot has its buffer: go on with whatever comes next.
void tcp_connection::buffer_ready(slot& s) noexcept {
    s.data = {s.memory + reinterpret_cast<uintptr_t>(s.data.iov_base), s.data_length};
    if (s.to_host) {
        s.state = slot_state::executing;
        return execute(s);
    }
    s.received = 0;
    if (!s.in_capsule) {
        s.state = slot_state::sending_r2t;
        return queue_send(s);
    }
    s.state = slot_state::receiving;
    if (_paused) resume_receive();
}

// TCP 3.6.2.8. The data comes in order, as one R2T asked for it.
void tcp_connection::handle_h2c_data(std::span<const std::byte> header) noexcept {
    const auto& pdu = as<tcp::h2c_data>(header);
    auto wrong = [&](fatal_error why, std::size_t field) {
        terminate(why, static_cast<uint32_t>(field), header.first(sizeof pdu));
    };
    if (pdu.ttag >= _slots.size()) return wrong(fatal_error::invalid_header_field, offsetof(tcp::h2c_data, ttag));
    slot& s = *_slots[pdu.ttag];
    if (s.state != slot_state::receiving || s.in_capsule)
        return wrong(fatal_error::invalid_header_field, offsetof(tcp::h2c_data, ttag));
    if (s.command.cid != pdu.cccid) return wrong(fatal_error::invalid_header_field, offsetof(tcp::h2c_data, cccid));
    uint32_t bytes = pdu.datal;
    uint64_t carried = pdu.ch.plen - header.size() - (_data_digest ? tcp::digest_size : 0);
    if (bytes == 0 || bytes != carried) return wrong(fatal_error::invalid_header_field, offsetof(tcp::h2c_data, datal));
    if (pdu.datao != s.received || bytes > s.data_length - s.received)
        return wrong(fatal_error::data_out_of_range, 0);  // FEI says something of other errors only
    bool last = (pdu.ch.flags & tcp::pdu_flag::last) != 0;
    if (last != (bytes == s.data_length - s.received))
        return wrong(fatal_error::invalid_header_field, offsetof(tcp::common_header, flags));
    expect_data(&s, bytes);
}

void tcp_connection::expect_data(slot* into, uint32_t bytes) noexcept {
    _rx = rx::data;
    _receiving = into;
    _data_left = bytes;
    _digest_state = 0;
}

std::size_t tcp_connection::take_data(std::span<const std::byte> bytes) noexcept {
    std::size_t n = std::min<std::size_t>(_data_left, bytes.size());
    if (slot* s = _receiving) {
        if (s->memory == nullptr) return 0;
        std::byte* to = s->memory + s->received;
        if (_data_digest) {
            _digest_state = accel::copy_crc32c(to, bytes.first(n), _digest_state);
        } else {
            std::memcpy(to, bytes.data(), n);
        }
        s->received += static_cast<uint32_t>(n);
    }
    _data_left -= static_cast<uint32_t>(n);
    _progress = group.thread().now();
    if (_data_left == 0) {
        if (_data_digest) {
            _rx = rx::digest;
            _digest_have = 0;
        } else {
            data_complete();
        }
    }
    return n;
}

std::size_t tcp_connection::take_digest(std::span<const std::byte> bytes) noexcept {
    std::size_t n = std::min<std::size_t>(tcp::digest_size - _digest_have, bytes.size());
    std::memcpy(_digest_bytes.data() + _digest_have, bytes.data(), n);
    _digest_have = static_cast<uint8_t>(_digest_have + n);
    if (_digest_have == tcp::digest_size) {
        if (_receiving != nullptr && as<le32>(_digest_bytes).get() != _digest_state) _receiving->digest_bad = true;
        data_complete();
    }
    return n;
}

void tcp_connection::data_complete() noexcept {
    _rx = rx::header;
    slot* s = std::exchange(_receiving, nullptr);
    if (s == nullptr || (!s->in_capsule && s->received < s->data_length)) return;
    // A wrong data digest fails the command only (TCP 3.3.2.2), and the host may try again.
    if (s->digest_bad) return fail(*s, nvme::status::transient_transport_error, true);
    if (s->unwanted) [[unlikely]]
        return fail(*s, nvme::status::aborted_by_request, true);
    s->state = slot_state::executing;
    execute(*s);
}

void tcp_connection::fail(slot& s, nvme::status code, bool retry) noexcept {
    if (is_fused(s)) [[unlikely]]
        fused_half_ended(s);
    s.status = code;
    s.dnr = !retry;
    complete(s);
}

// C2HTermReq with the header that was wrong (TCP 3.6.2.5). The host ends the connection then; closing it first, with
// bytes of the host's unread, would make the kernel throw the C2HTermReq away.
void tcp_connection::terminate(fatal_error why, uint32_t info, std::span<const std::byte> header) noexcept {
    if (_terminating || _closing) return;
    _rx = rx::ended;
    _terminating = true;
    ++group.stats.protocol_errors;
    header = header.first(std::min<std::size_t>(header.size(), tcp::term_data_max));
    tcp::term_req pdu{};
    uint32_t length = static_cast<uint32_t>(sizeof pdu + header.size());
    pdu.ch = {.type = nvme::raw(pdu_type::c2h_term_req), .flags = 0, .hlen = sizeof pdu, .pdo = 0, .plen = length};
    pdu.fes = nvme::raw(why);
    pdu.fei = info;
    std::array<std::byte, tcp::term_pdu_max> bytes;
    std::memcpy(bytes.data(), &pdu, sizeof pdu);
    std::memcpy(bytes.data() + sizeof pdu, header.data(), header.size());
    queue_control({bytes.data(), length});
    constexpr time_ns patience = 1 * seconds;  // for a host that does not
    _term_timer.start(patience);
}

}  // namespace varve::targets::nvmf
