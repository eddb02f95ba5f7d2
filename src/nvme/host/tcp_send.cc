// From requests to bytes: capsules, data that was asked for, batches.
#include <algorithm>

#include "accel/crc32c.h"
#include "nvme/host/tcp_queue_pair.h"

namespace varve::nvme::host {

namespace {

using tcp::digest_size;
using tcp::pdu_type;
namespace pdu_flag = tcp::pdu_flag;

// Fills what lies between a header of `size` bytes at `pdu` and its data at `data_at`: the digest, then padding.
void finish_header(std::byte* pdu, uint32_t size, uint32_t data_at, bool digest) noexcept {
    uint32_t end = size;
    if (digest) {
        const le32 crc = accel::crc32c(std::span<const std::byte>(pdu, size));
        std::memcpy(pdu + size, &crc, digest_size);
        end += digest_size;
    }
    if (data_at > end) std::memset(pdu + end, 0, data_at - end);
}

// How many of `length` bytes from `offset` lie within that many pieces of the request's data; whole dwords unless all.
uint32_t bytes_within(const request& r, uint32_t offset, uint32_t length, uint32_t pieces) noexcept {
    const iovec* piece = r.iov;
    std::size_t skip = offset;
    while (skip >= piece->iov_len) skip -= piece++->iov_len;
    std::size_t bytes = 0;
    for (; pieces != 0 && bytes < length; ++piece, --pieces, skip = 0) bytes += piece->iov_len - skip;
    if (bytes >= length) return length;
    return static_cast<uint32_t>(bytes >= 4 ? bytes & ~std::size_t{3} : bytes);
}

}  // namespace

bool tcp_queue_pair::try_start(request& r) noexcept {
    if (_slots.available() == 0) [[unlikely]]
        return false;
    const sqe& c = r.command;
    const data_direction direction = host::direction_of(c);
    const bool writes = direction == data_direction::to_controller && r.length != 0;
    bool in_capsule = false;
    if (writes) {
        const bool small = _options.qid == 0 || c.opcode == raw(nvm_opcode::fabrics);
        in_capsule =
            r.length <= (small ? admin_in_capsule_max : _options.in_capsule_max) && r.iov_count <= batch_pieces - 2;
    }
    batch* b = room(pdo_max + digest_size, in_capsule ? r.iov_count + 2 : 1);
    if (b == nullptr) [[unlikely]]
        return false;

    slot& s = _slots.acquire(r);
    s.direction = direction;
    s.in_capsule = in_capsule;
    const uint32_t head = sizeof(tcp::capsule_cmd) + (_header_digest ? digest_size : 0);
    const uint32_t data_at = in_capsule ? tcp::data_offset(sizeof(tcp::capsule_cmd), _header_digest, _cpda) : head;
    const bool digest = in_capsule && _data_digest;
    std::byte* at = b->append(data_at);
    auto& pdu = *reinterpret_cast<tcp::capsule_cmd*>(at);
    pdu.command = c;
    pdu.command.cid = r.command.cid = s.cid;
    pdu.command.set_flags(c.fused(), data_pointer::sgl);
    pdu.command.dptr = in_capsule ? sgl_descriptor::in_capsule(r.length) : sgl_descriptor::by_transport(r.length);
    pdu.ch = {.type = raw(pdu_type::capsule_cmd),
              .flags = static_cast<uint8_t>((_header_digest ? pdu_flag::header_digest : 0) |
                                            (digest ? pdu_flag::data_digest : 0)),
              .hlen = sizeof(tcp::capsule_cmd),
              .pdo = static_cast<uint8_t>(in_capsule ? data_at : 0),
              .plen = in_capsule ? tcp::pdu_length(data_at, r.length, digest) : head};
    if (data_at != sizeof(tcp::capsule_cmd)) finish_header(at, sizeof(tcp::capsule_cmd), data_at, _header_digest);
    if (in_capsule) append_data(*b, s, 0, r.length);
    if (!_receiving) flush_later();
    return true;
}

bool tcp_queue_pair::room_for_two() noexcept {
    // Each in-capsule command may take a batch of its own: the open one is sent when the second does not fit it.
    return _slots.available() >= 2 && _free_count >= 2;
}

// The open batch if it has room, or an empty one; null when none is free until a send is over.
tcp_queue_pair::batch* tcp_queue_pair::room(uint32_t bytes, uint32_t pieces) noexcept {
    if (_open != nullptr) {
        if (_open->fits(bytes, pieces)) [[likely]]
            return _open;
        send_open_batch();
    }
    if (_free_count == 0) return nullptr;
    _open = _free[--_free_count];
    return _open;
}

void tcp_queue_pair::send_open_batch() noexcept {
    batch& b = *std::exchange(_open, nullptr);
    if (b.empty()) {
        _free[_free_count++] = &b;
        return;
    }
    b.seal();
    _socket->send(b);
}

void tcp_queue_pair::do_flush() noexcept {
    if (_open != nullptr && !broken()) send_open_batch();
}

void tcp_queue_pair::on_batch_end() noexcept {
    inside in(_home);
    _receiving = false;
    do_flush();
}

void tcp_queue_pair::send_ic_req() noexcept {
    batch* b = room(sizeof(tcp::ic_req), 1);
    auto& pdu = *reinterpret_cast<tcp::ic_req*>(b->append(sizeof(tcp::ic_req)));
    pdu = {};
    pdu.ch = {.type = raw(pdu_type::ic_req), .flags = 0, .hlen = sizeof pdu, .pdo = 0, .plen = sizeof pdu};
    pdu.pfv = tcp::format_version;
    pdu.hpda = 0;
    pdu.dgst = static_cast<uint8_t>((_wanted.header_digest ? tcp::digest_enable::header : 0) |
                                    (_wanted.data_digest ? tcp::digest_enable::data : 0));
    pdu.maxr2t = 0;  // one at a time for each command
    send_open_batch();
}

// Appends `length` bytes of the request's data from `offset`, and their digest.
void tcp_queue_pair::append_data(batch& to, slot& of, uint32_t offset, uint32_t length) noexcept {
    const iovec* piece = of.owner->iov;
    std::size_t skip = offset;
    while (skip >= piece->iov_len) skip -= piece++->iov_len;
    uint32_t crc = 0;
    for (uint32_t left = length; left != 0; ++piece, skip = 0) {
        const std::size_t n = std::min<std::size_t>(left, piece->iov_len - skip);
        if (n == 0) continue;
        const iovec part{static_cast<std::byte*>(piece->iov_base) + skip, n};
        to.append_outside(part);
        to.readers.push_back(of.cid);
        ++of.sends;
        if (_data_digest) crc = accel::crc32c(std::span<const iovec>(&part, 1), crc);
        left -= static_cast<uint32_t>(n);
    }
    if (_data_digest) {
        const le32 digest = crc;
        std::memcpy(to.append(digest_size), &digest, digest_size);
    }
}

void tcp_queue_pair::send_requested_data() noexcept {
    while (slot* s = _requested.front()) {
        if (!send_requested_data_of(*s)) return;
        _requested.pop();
    }
}

// False when it could not send all now, for want of a batch.
bool tcp_queue_pair::send_requested_data_of(slot& s) noexcept {
    const uint8_t data_at = tcp::data_offset(sizeof(tcp::h2c_data), _header_digest, _cpda);
    while (s.r2t_left != 0) {
        batch* b = room(data_at + digest_size, std::min(s.owner->iov_count + 2, batch_pieces));
        if (b == nullptr) return false;
        // As much as the controller takes in one PDU and the batch holds pieces of.
        uint32_t length = std::min(s.r2t_left, _h2c_max);
        const uint32_t pieces = b->free_pieces() - 2;
        if (s.owner->iov_count > pieces) length = bytes_within(*s.owner, s.r2t_offset, length, pieces);
        const bool last = length == s.r2t_left;
        std::byte* at = b->append(data_at);
        auto& pdu = *reinterpret_cast<tcp::h2c_data*>(at);
        pdu = {};
        pdu.ch = {
            .type = raw(pdu_type::h2c_data),
            .flags = static_cast<uint8_t>((_header_digest ? pdu_flag::header_digest : 0) |
                                          (_data_digest ? pdu_flag::data_digest : 0) | (last ? pdu_flag::last : 0)),
            .hlen = sizeof pdu,
            .pdo = data_at,
            .plen = tcp::pdu_length(data_at, length, _data_digest)};
        pdu.cccid = s.cid;
        pdu.ttag = s.r2t_tag;
        pdu.datao = s.r2t_offset;
        pdu.datal = length;
        finish_header(at, sizeof pdu, data_at, _header_digest);
        append_data(*b, s, s.r2t_offset, length);
        s.r2t_offset += length;
        s.r2t_left -= length;
        if (!_receiving) flush_later();
    }
    return true;
}

void tcp_queue_pair::on_sent(batch& b) noexcept {
    for (uint16_t cid : b.readers) {
        slot* s = _slots.find(cid);
        VARVE_ASSERT(s != nullptr && s->sends > 0);
        if (--s->sends == 0 && s->answered) finish(*s);
    }
    b.readers.clear();
    b.clear();
    _free[_free_count++] = &b;
    if (_state != state::ready) return;
    send_requested_data();
    resume();
}

}  // namespace varve::nvme::host
