// From bytes to answers: a parser that takes the stream in whatever pieces it comes.
#include <algorithm>

#include "accel/crc32c.h"
#include "nvme/host/tcp_queue_pair.h"

namespace varve::nvme::host {

namespace {

using tcp::common_header;
using tcp::digest_size;
using tcp::fatal_error;
using tcp::pdu_type;
namespace pdu_flag = tcp::pdu_flag;

template <class Pdu>
const Pdu& view(const std::byte* at) noexcept {
    static_assert(alignof(Pdu) == 1);
    return *reinterpret_cast<const Pdu*>(at);
}

// Terminate requests and the handshake have no digests (TCP 3.6.2).
bool may_have_digest(pdu_type type) noexcept { return type != pdu_type::ic_resp && type != pdu_type::c2h_term_req; }

}  // namespace

std::size_t tcp_queue_pair::on_data(std::span<const std::byte> bytes) noexcept {
    inside in(_home);
    _receiving = true;
    const std::byte* at = bytes.data();
    const std::byte* const end = at + bytes.size();
    while (at != end && !broken()) {
        switch (_phase) {
            case phase::header:
                at = take_header(at, end);
                break;
            case phase::padding: {
                const auto n = std::min<std::size_t>(_padding_left, static_cast<std::size_t>(end - at));
                at += n;
                _padding_left -= static_cast<uint32_t>(n);
                if (_padding_left == 0) _phase = phase::data;
                break;
            }
            case phase::data:
                at = take_data(at, end);
                break;
            case phase::digest:
                at = take_digest(at, end);
                break;
        }
    }
    return bytes.size();
}

// Takes a whole header where it lies, or collects one that comes in pieces.
const std::byte* tcp_queue_pair::take_header(const std::byte* at, const std::byte* end) noexcept {
    const auto available = static_cast<std::size_t>(end - at);
    if (_have == 0 && available >= sizeof(common_header)) [[likely]] {
        if (!check_common(at)) return end;
        if (available >= _need) [[likely]] {
            const std::byte* header = at;
            at += _need;
            on_header(header);
            return at;
        }
    }
    const auto n = std::min<std::size_t>(_need - _have, available);
    std::memcpy(_held.data() + _have, at, n);
    _have += static_cast<uint32_t>(n);
    if (_have != _need) return at + n;
    if (_need == sizeof(common_header) && !check_common(_held.data())) return end;
    if (_have == _need) {
        _have = 0;
        on_header(_held.data());
    }
    return at + n;
}

// The fields every PDU has; afterwards _need says how long its header is with its digest. False: the connection is
// over.
bool tcp_queue_pair::check_common(const std::byte* header) noexcept {
    const auto& ch = view<common_header>(header);
    const auto type = static_cast<pdu_type>(ch.type);
    _pdu = {header, sizeof ch};
    const auto wrong = [this](fatal_error what, uint32_t field, const char* text) noexcept {
        protocol_error(what, field, text);
        return false;
    };
    switch (type) {
        case pdu_type::ic_resp:
            if (_state != state::opening) return wrong(fatal_error::sequence_error, 0, "a second ICResp");
            break;
        case pdu_type::c2h_term_req:
            break;
        case pdu_type::capsule_resp:
        case pdu_type::c2h_data:
        case pdu_type::r2t:
            if (_state != state::ready) return wrong(fatal_error::sequence_error, 0, "a PDU before ICResp");
            break;
        default:
            return wrong(fatal_error::invalid_header_field, 0, "a PDU of unknown type");
    }
    if (ch.hlen != tcp::header_length(type)) return wrong(fatal_error::invalid_header_field, 2, "a wrong HLEN");
    const bool digest = _header_digest && may_have_digest(type);
    if (((ch.flags & pdu_flag::header_digest) != 0) != digest)
        return wrong(fatal_error::invalid_header_field, 1, "a wrong HDGSTF");
    _need = ch.hlen + (digest ? digest_size : 0);
    if (type == pdu_type::c2h_term_req) {
        if (ch.plen < _need || ch.plen > tcp::term_pdu_max)
            return wrong(fatal_error::invalid_header_field, 4, "a wrong PLEN of a terminate request");
    } else if (type != pdu_type::c2h_data && ch.plen != _need) {
        return wrong(fatal_error::invalid_header_field, 4, "a wrong PLEN");
    }
    return true;
}

void tcp_queue_pair::on_header(const std::byte* header) noexcept {
    const auto& ch = view<common_header>(header);
    _need = sizeof(common_header);  // of the next
    _pdu = {header, ch.hlen};
    const auto type = static_cast<pdu_type>(ch.type);
    if (_header_digest && may_have_digest(type)) {
        const uint32_t sent = view<le32>(header + ch.hlen);
        if (sent != accel::crc32c(_pdu))
            return protocol_error(fatal_error::header_digest_error, sent, "a wrong header digest");
    }
    switch (type) {
        case pdu_type::c2h_data:
            return on_c2h_data(view<tcp::c2h_data>(header));
        case pdu_type::capsule_resp:
            return on_capsule_resp(view<tcp::capsule_resp>(header));
        case pdu_type::r2t:
            return on_r2t(view<tcp::r2t>(header));
        case pdu_type::ic_resp:
            return on_ic_resp(view<tcp::ic_resp>(header));
        default:
            return on_term_req(view<tcp::term_req>(header));
    }
}

void tcp_queue_pair::on_ic_resp(const tcp::ic_resp& pdu) noexcept {
    const uint8_t asked = static_cast<uint8_t>((_wanted.header_digest ? tcp::digest_enable::header : 0) |
                                               (_wanted.data_digest ? tcp::digest_enable::data : 0));
    if (pdu.pfv != tcp::format_version)
        return protocol_error(fatal_error::unsupported_parameter, 8, "an unknown PDU format version");
    if (pdu.cpda > tcp::pda_max) return protocol_error(fatal_error::invalid_header_field, 10, "a CPDA above 31");
    if ((pdu.dgst & ~asked) != 0)
        return protocol_error(fatal_error::invalid_header_field, 11, "digests that were not asked for");
    if (pdu.maxh2cdata < tcp::maxh2cdata_min || pdu.maxh2cdata % 4 != 0)
        return protocol_error(fatal_error::invalid_header_field, 12, "a MAXH2CDATA below 4096 or of broken dwords");
    _header_digest = (pdu.dgst & tcp::digest_enable::header) != 0;
    _data_digest = (pdu.dgst & tcp::digest_enable::data) != 0;
    _cpda = pdu.cpda;
    _h2c_max = pdu.maxh2cdata;
    if (_timeout) _timeout->cancel();
    became_ready();
}

void tcp_queue_pair::on_term_req(const tcp::term_req& pdu) noexcept {
    const char* why = "the controller ended the connection";
    switch (static_cast<fatal_error>(pdu.fes.get())) {
        case fatal_error::invalid_header_field:
            why = "the controller met an invalid header field";
            break;
        case fatal_error::sequence_error:
            why = "the controller met a PDU out of sequence";
            break;
        case fatal_error::header_digest_error:
            why = "the controller met a wrong header digest";
            break;
        case fatal_error::data_out_of_range:
            why = "the controller met data out of range";
            break;
        case fatal_error::limit_exceeded:
            why = "the controller met a transfer beyond its limit";
            break;
        case fatal_error::unsupported_parameter:
            why = "the controller met an unsupported parameter";
            break;
    }
    abandon(error(errc::reset, why));
}

void tcp_queue_pair::on_capsule_resp(const tcp::capsule_resp& pdu) noexcept {
    slot* s = _slots.find(pdu.completion.cid);
    if (s == nullptr || s->answered)
        return protocol_error(fatal_error::invalid_header_field, 20, "a response to no command");
    answer(*s, pdu.completion);
}

void tcp_queue_pair::on_c2h_data(const tcp::c2h_data& pdu) noexcept {
    slot* s = _slots.find(pdu.cccid);
    if (s == nullptr || s->answered || s->direction != data_direction::to_host)
        return protocol_error(fatal_error::invalid_header_field, 8, "data for no command");
    const uint32_t length = pdu.datal;
    const uint32_t header = sizeof pdu + (_header_digest ? digest_size : 0);
    if (pdu.ch.pdo < header || pdu.ch.pdo % 4 != 0)
        return protocol_error(fatal_error::invalid_header_field, 3, "a wrong PDO");
    if (((pdu.ch.flags & pdu_flag::data_digest) != 0) != _data_digest)
        return protocol_error(fatal_error::invalid_header_field, 1, "a wrong DDGSTF");
    if (pdu.datao != s->received || length == 0 || length > s->owner->length - s->received)
        return protocol_error(fatal_error::data_out_of_range, 12, "data out of range");
    if (pdu.ch.plen != tcp::pdu_length(pdu.ch.pdo, length, _data_digest))
        return protocol_error(fatal_error::invalid_header_field, 4, "a wrong PLEN of data");
    if ((pdu.ch.flags & (pdu_flag::success | pdu_flag::last)) == pdu_flag::success)
        return protocol_error(fatal_error::invalid_header_field, 1, "SUCCESS before the last data");
    _receiver = s;
    _pdu_flags = pdu.ch.flags;
    _padding_left = pdu.ch.pdo - header;
    _data_left = length;
    _crc = 0;
    _into = s->owner->iov;
    _into_offset = s->received;
    while (_into_offset >= _into->iov_len) _into_offset -= _into++->iov_len;
    _phase = _padding_left != 0 ? phase::padding : phase::data;
}

const std::byte* tcp_queue_pair::take_data(const std::byte* at, const std::byte* end) noexcept {
    const auto total = std::min<std::size_t>(_data_left, static_cast<std::size_t>(end - at));
    for (std::size_t left = total; left != 0;) {
        const std::size_t n = std::min(left, _into->iov_len - _into_offset);
        std::byte* to = static_cast<std::byte*>(_into->iov_base) + _into_offset;
        if (_data_digest) {
            _crc = accel::copy_crc32c(to, {at, n}, _crc);
        } else if (n != 0) {
            std::memcpy(to, at, n);
        }
        at += n;
        left -= n;
        _into_offset += n;
        if (_into_offset == _into->iov_len) {
            ++_into;
            _into_offset = 0;
        }
    }
    _data_left -= static_cast<uint32_t>(total);
    _receiver->received += static_cast<uint32_t>(total);
    if (_data_left == 0) {
        if (_data_digest) {
            _phase = phase::digest;
        } else {
            data_over();
        }
    }
    return at;
}

const std::byte* tcp_queue_pair::take_digest(const std::byte* at, const std::byte* end) noexcept {
    const auto n = std::min<std::size_t>(digest_size - _have, static_cast<std::size_t>(end - at));
    std::memcpy(_held.data() + _have, at, n);
    _have += static_cast<uint32_t>(n);
    if (_have == digest_size) {
        _have = 0;
        // Fails the command and not the connection (TCP 3.3.1.1): headers are intact, the stream goes on.
        if (view<le32>(_held.data()) != _crc) _receiver->digest_failed = true;
        data_over();
    }
    return at + n;
}

void tcp_queue_pair::data_over() noexcept {
    _phase = phase::header;
    slot& s = *std::exchange(_receiver, nullptr);
    if ((_pdu_flags & pdu_flag::success) != 0) {
        cqe completion{};
        completion.cid = s.cid;
        answer(s, completion);
    }
}

void tcp_queue_pair::on_r2t(const tcp::r2t& pdu) noexcept {
    slot* s = _slots.find(pdu.cccid);
    if (s == nullptr || s->answered || s->direction != data_direction::to_controller || s->in_capsule)
        return protocol_error(fatal_error::invalid_header_field, 8, "a request for data of no command");
    if (s->r2t_left != 0) return protocol_error(fatal_error::limit_exceeded, 0, "two requests for data at a time");
    const uint32_t length = pdu.r2tl, offset = pdu.r2to;
    if (length == 0 || !range_inside(offset, length, s->owner->length))
        return protocol_error(fatal_error::data_out_of_range, 12, "a request for data out of range");
    s->r2t_tag = pdu.ttag;
    s->r2t_offset = offset;
    s->r2t_left = length;
    _requested.push(*s);
    send_requested_data();
}

void tcp_queue_pair::answer(slot& s, const cqe& completion) noexcept {
    request& r = *s.owner;
    r.completion = completion;
    r.transferred = s.received;
    if (completion.ok() && s.direction == data_direction::to_host) {
        if (s.digest_failed) [[unlikely]] {
            r.completion.status_field = make_status(status::transient_transport_error);
        } else if (s.received != r.length && _options.qid != 0) [[unlikely]] {
            r.completion.status_field = make_status(status::data_transfer_error);
        }
    }
    if (s.r2t_left != 0) [[unlikely]]
        forget_requested_data(s);
    if (s.sends != 0) {
        s.answered = true;  // on_sent finishes it
        return;
    }
    finish(s);
}

void tcp_queue_pair::forget_requested_data(slot& s) noexcept {
    s.r2t_left = 0;
    slot* others = _requested.take_all();
    while (others != nullptr) {
        slot& one = *others;
        others = others->next;
        if (&one != &s) _requested.push(one);
    }
}

void tcp_queue_pair::finish(slot& s) noexcept {
    request& r = *s.owner;
    _slots.release(s);
    r.done(r);
    resume();
}

}  // namespace varve::nvme::host
