// NVMe/TCP transmit: what finished in a turn leaves in one gathered send. See tcp_connection.h.
#include <limits.h>
#include <algorithm>
#include <cstring>

#include "accel/crc32c.h"
#include "targets/nvmf/tcp_connection.h"

namespace varve::targets::nvmf {

namespace tcp = nvme::tcp;
using tcp::pdu_type;

namespace {

// Room that one slot needs at most: a data header with padding to the largest alignment, the data's digest, a response.
constexpr std::size_t header_room = 128 + tcp::digest_size + sizeof(tcp::capsule_resp) + tcp::digest_size;
constexpr std::size_t iov_room = 3;
// A gathered send never asks for more than the kernel takes.
constexpr std::size_t iov_limit = IOV_MAX;

}  // namespace

void tcp_connection::queue_send(slot& s) noexcept {
    _to_send.push(s);
    if (_flush_queued) return;
    _flush_queued = true;
    thread::thread::current()->defer(_flush_work);
}

void tcp_connection::queue_control(std::span<const std::byte> pdu) noexcept {
    _control.insert(_control.end(), pdu.begin(), pdu.end());
    if (_flush_queued) return;
    _flush_queued = true;
    thread::thread::current()->defer(_flush_work);
}

void tcp_connection::flush() noexcept {
    if (_closing || _terminating) {
        while (slot* s = _to_send.pop()) release(*s);
        if (_closing) return;
    }
    for (batch& b : _batches) {
        if (_to_send.empty() && _control.empty()) return;
        if (b.under_way) continue;
        if (b.pieces.size() != pieces_wanted()) size_batch(b);
        b.iov_used = b.header_used = 0;
        if (!_control.empty()) {
            VARVE_ASSERT(_control.size() <= b.headers.size());
            std::memcpy(add_header(b, _control.size()), _control.data(), _control.size());
            _control.clear();
        }
        while (slot* s = _to_send.front()) {
            if (b.header_used + header_room > b.headers.size() || b.iov_used + iov_room > b.pieces.size()) break;
            _to_send.pop();
            if (s->state == slot_state::sending_r2t) {
                append_r2t(b, *s);
                await_data();
                s->state = slot_state::receiving;  // the host may answer before we hear that the send is done
            } else {
                append_response(b, *s);
                s->next = b.slots;
                b.slots = s;
            }
        }
        b.under_way = true;
        b.iov = b.pieces.data();
        b.iov_count = static_cast<uint32_t>(b.iov_used);
        _socket->send(b);
    }
}

void tcp_connection::batch_done(batch& b) noexcept {
    thread::entered in(group.thread());
    b.under_way = false;
    slot* s = std::exchange(b.slots, nullptr);
    while (s != nullptr) {
        slot* next = s->next;
        release(*s);
        s = next;
    }
    if (!_to_send.empty() || !_control.empty()) flush();
}

void tcp_connection::add_iov(batch& b, const void* data, std::size_t length) noexcept {
    auto* bytes = static_cast<std::byte*>(const_cast<void*>(data));
    if (b.iov_used != 0) {
        iovec& last = b.pieces[b.iov_used - 1];
        if (static_cast<std::byte*>(last.iov_base) + last.iov_len == bytes) {  // headers of neighbours lie together
            last.iov_len += length;
            return;
        }
    }
    b.pieces[b.iov_used++] = {bytes, length};
}

std::byte* tcp_connection::add_header(batch& b, std::size_t length) noexcept {
    std::byte* at = b.headers.data() + b.header_used;
    b.header_used += length;
    add_iov(b, at, length);
    return at;
}

namespace {

// Writes the PDU's header and, when the connection has them, its digest.
template <class Pdu>
void put(std::byte* at, const Pdu& pdu, bool header_digest) noexcept {
    std::memcpy(at, &pdu, sizeof pdu);
    if (!header_digest) return;
    le32 digest = accel::crc32c({at, sizeof pdu});
    std::memcpy(at + sizeof pdu, &digest, sizeof digest);
}

}  // namespace

// TCP 3.6.2.9: all data of a command in one PDU.
void tcp_connection::append_read_data(batch& b, slot& s, bool stands_for_response) noexcept {
    tcp::c2h_data pdu{};
    uint8_t offset = tcp::data_offset(sizeof pdu, _header_digest, _hpda);
    uint8_t flags = tcp::pdu_flag::last;
    if (_header_digest) flags |= tcp::pdu_flag::header_digest;
    if (_data_digest) flags |= tcp::pdu_flag::data_digest;
    if (stands_for_response) flags |= tcp::pdu_flag::success;
    pdu.ch = {.type = nvme::raw(pdu_type::c2h_data),
              .flags = flags,
              .hlen = sizeof pdu,
              .pdo = offset,
              .plen = tcp::pdu_length(offset, s.transfer_length, _data_digest)};
    pdu.cccid = s.command.cid;
    pdu.datao = 0;
    pdu.datal = s.transfer_length;
    std::byte* at = add_header(b, offset);
    if (offset > sizeof pdu) std::memset(at + sizeof pdu, 0, offset - sizeof pdu);
    put(at, pdu, _header_digest);
    add_iov(b, s.data.iov_base, s.transfer_length);
    if (_data_digest) {
        le32 digest = accel::crc32c({static_cast<const std::byte*>(s.data.iov_base), s.transfer_length});
        std::memcpy(add_header(b, sizeof digest), &digest, sizeof digest);
    }
}

// TCP 3.6.2.7. After data, a response that only says success may be left out when the host keeps no count of queue
// heads.
void tcp_connection::append_response(batch& b, slot& s) noexcept {
    if (s.transfer_length != 0 && s.status == nvme::status::success) {
        bool left_out = !sq_flow_control && _options.c2h_success && s.result == 0;
        append_read_data(b, s, left_out);
        if (left_out) return;
    }
    // An entry counts as free when its command has ended: hosts have no more under way than there are slots.
    if (sq_flow_control) head = static_cast<uint16_t>(head + 1 >= size ? 0 : head + 1);
    tcp::capsule_resp pdu{};
    std::size_t length = sizeof pdu + (_header_digest ? tcp::digest_size : 0);
    pdu.ch = {.type = nvme::raw(pdu_type::capsule_resp),
              .flags = _header_digest ? tcp::pdu_flag::header_digest : uint8_t{0},
              .hlen = sizeof pdu,
              .pdo = 0,
              .plen = static_cast<uint32_t>(length)};
    pdu.completion.cdw0 = static_cast<uint32_t>(s.result);
    pdu.completion.cdw1 = static_cast<uint32_t>(s.result >> 32);
    pdu.completion.sqhd = head;
    if (!sq_flow_control) head = 0;  // reserved, but in the answer to Connect
    pdu.completion.cid = s.command.cid;
    pdu.completion.status_field = nvme::make_status(s.status, s.dnr);
    put(add_header(b, length), pdu, _header_digest);
}

// TCP 3.6.2.10: one R2T asks for everything.
void tcp_connection::append_r2t(batch& b, slot& s) noexcept {
    tcp::r2t pdu{};
    std::size_t length = sizeof pdu + (_header_digest ? tcp::digest_size : 0);
    pdu.ch = {.type = nvme::raw(pdu_type::r2t),
              .flags = _header_digest ? tcp::pdu_flag::header_digest : uint8_t{0},
              .hlen = sizeof pdu,
              .pdo = 0,
              .plen = static_cast<uint32_t>(length)};
    pdu.cccid = s.command.cid;
    pdu.ttag = s.index;
    pdu.r2to = 0;
    pdu.r2tl = s.data_length;
    put(add_header(b, length), pdu, _header_digest);
}

std::size_t tcp_connection::pieces_wanted() const noexcept { return std::min(iov_limit, _slots.size() * iov_room + 1); }

// Headers for as many slots as there are pieces for.
void tcp_connection::size_batch(batch& b) {
    b.pieces.resize(pieces_wanted());
    b.headers.resize(sizeof(tcp::ic_resp) + tcp::term_pdu_max + (b.pieces.size() / iov_room + 1) * header_room);
}

void tcp_connection::size_batches() {
    for (batch& b : _batches)
        if (!b.under_way) size_batch(b);  // flush() sees to the others
}

}  // namespace varve::targets::nvmf
