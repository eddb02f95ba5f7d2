// A controller that sends whatever the fuzzer likes to a queue pair with requests under way.
//
// The input is a program: the first bytes choose digests and the answer to the handshake, then each step is an
// operation and its operands. Steps build PDUs that are right but for what the input says, so that states deep in the
// protocol are reached, or send raw bytes, in pieces of any size; sends complete late or early; requests are submitted
// in between. Checked: no crash, no byte written outside a request's memory, and every request completes once.
#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "accel/crc32c.h"
#include "nvme/host/tcp_queue_pair.h"

namespace {

using namespace varve;
using namespace varve::nvme;
using namespace varve::nvme::host;
using tcp::pdu_type;
namespace pdu_flag = tcp::pdu_flag;

class input {
  public:
    input(const uint8_t* data, size_t size) : _at(data), _end(data + size) {}
    bool empty() const { return _at == _end; }
    uint8_t byte() { return empty() ? uint8_t{0} : *_at++; }
    uint16_t word() { return static_cast<uint16_t>(byte() | byte() << 8); }
    std::vector<std::byte> bytes(size_t n) {
        n = std::min(n, static_cast<size_t>(_end - _at));
        std::vector<std::byte> taken(n);
        if (n != 0) std::memcpy(taken.data(), _at, n);
        _at += n;
        return taken;
    }

  private:
    const uint8_t* _at;
    const uint8_t* _end;
};

// Keeps sends until told to finish them, and notes the commands in them.
class fuzz_socket final : public env::socket {
  public:
    explicit fuzz_socket(fuzz_socket*& self, std::deque<env::send_op*>& sends) : _self(self), _sends(sends) {
        _self = this;
    }
    ~fuzz_socket() override { _self = nullptr; }
    void start(env::socket_handler& h) noexcept override { handler = &h; }
    void send(env::send_op& op) noexcept override {
        // Everything that is sent is readable memory.
        for (uint32_t i = 0; i < op.iov_count; ++i)
            digest = accel::crc32c(std::span<const iovec>(op.iov + i, 1), digest);
        _sends.push_back(&op);
    }
    void resume_receive() noexcept override {}
    void close() noexcept override { closing = true; }
    const env::address& local() const noexcept override { return _address; }
    const env::address& peer() const noexcept override { return _address; }

    env::socket_handler* handler = nullptr;
    bool closing = false;
    uint32_t digest = 0;

  private:
    fuzz_socket*& _self;
    std::deque<env::send_op*>& _sends;
    env::address _address;
};

constexpr std::size_t guard = 64;

struct fuzz_request : request {
    std::vector<std::byte> memory;
    std::vector<iovec> pieces;
    bool out = false;

    void prepare(nvm_opcode opcode, uint32_t bytes, unsigned piece_count) {
        memory.assign(bytes + 2 * guard, std::byte{0x5a});
        pieces.clear();
        uint32_t at = 0;
        for (unsigned i = 0; i < piece_count; ++i) {
            const uint32_t n = i + 1 == piece_count ? bytes - at : std::min(bytes - at, bytes / piece_count);
            pieces.push_back({memory.data() + guard + at, n});
            at += n;
        }
        command = sqe{};
        command.opcode = raw(opcode);
        iov = pieces.data();
        iov_count = static_cast<uint32_t>(pieces.size());
        length = bytes;
        done = [](request& over) noexcept {
            auto& mine = static_cast<fuzz_request&>(over);
            VARVE_ASSERT(mine.out);
            mine.out = false;
            mine.check();
        };
        out = true;
    }
    void check() const {
        for (std::size_t i = 0; i < guard && !memory.empty(); ++i)
            VARVE_ASSERT(memory[i] == std::byte{0x5a} && memory[memory.size() - 1 - i] == std::byte{0x5a});
    }
};

class session {
  public:
    explicit session(input& in) : _in(in) {
        const uint8_t how = in.byte();
        _header_digest = how & 1;
        _data_digest = how & 2;
        _requests.resize(12);
        _queue = std::make_unique<tcp_queue_pair>(
            nullptr, queue_options{.qid = static_cast<uint16_t>(how & 4 ? 0 : 1), .entries = 9, .in_capsule_max = 4096},
            tcp_options{.header_digest = _header_digest, .data_digest = _data_digest},
            std::make_unique<fuzz_socket>(_socket, _sends));
        if (how & 8) {
            _header_digest = _data_digest = false;
        }
        if ((how & 0x80) == 0) handshake(how & 0x10 ? in.byte() : 0);
    }

    void run() {
        while (!_in.empty() && _socket != nullptr && !_socket->closing) step();
        finish();
    }

  private:
    void handshake(uint8_t cpda) {
        tcp::ic_resp pdu{};
        pdu.ch = {.type = raw(pdu_type::ic_resp), .flags = 0, .hlen = sizeof pdu, .pdo = 0, .plen = sizeof pdu};
        pdu.cpda = cpda;
        pdu.dgst = static_cast<uint8_t>((_header_digest ? 1 : 0) | (_data_digest ? 2 : 0));
        pdu.maxh2cdata = 4096u << (cpda & 3);
        deliver(&pdu, sizeof pdu);
    }

    void step() {
        const uint8_t operation = _in.byte();
        switch (operation & 0xf) {
            case 0:
                return submit();
            case 1:
                return _queue->flush();
            case 2:
                return sent();
            case 3:
                return send_response();
            case 4:
                return send_data();
            case 5:
                return send_r2t();
            case 6: {
                const auto bytes = _in.bytes(_in.byte());
                return deliver(bytes.data(), bytes.size());
            }
            case 7:
                _piece = _in.byte() % 80;
                return;
            case 8:
                return mutate_next();
            case 9:
                return batch_end();
            case 10:
                return submit_pair();
            case 11:
                _queue->abandon(error(errc::cancelled));
                return;
            default: {
                // What a well-behaved host does all the time.
                _queue->flush();
                sent();
            }
        }
    }

    fuzz_request* idle() {
        auto at = std::ranges::find(_requests, false, &fuzz_request::out);
        return at == _requests.end() ? nullptr : &*at;
    }
    void prepare(fuzz_request& r) {
        static constexpr nvm_opcode opcodes[] = {nvm_opcode::read, nvm_opcode::write, nvm_opcode::flush,
                                                 nvm_opcode::compare};
        const uint8_t how = _in.byte();
        const nvm_opcode opcode = opcodes[how & 3];
        const uint32_t bytes = opcode == nvm_opcode::flush ? 0 : (1u + (how >> 2 & 0xf)) * 512u * (how & 0x40 ? 7 : 1);
        r.prepare(opcode, bytes, opcode == nvm_opcode::flush ? 0 : how & 0x80 ? 1 + _in.byte() : 1);
    }
    void submit() {
        if (fuzz_request* r = idle()) {
            prepare(*r);
            _queue->submit(*r);
        }
    }
    void submit_pair() {
        fuzz_request* first = idle();
        if (first == nullptr) return;
        prepare(*first);
        fuzz_request* second = idle();
        if (second == nullptr) return _queue->submit(*first);
        prepare(*second);
        first->command.set_flags(fuse::first, data_pointer::sgl);
        second->command.set_flags(fuse::second, data_pointer::sgl);
        _queue->submit_pair(*first, *second);
    }
    void sent() {
        if (_sends.empty()) return;
        env::send_op& op = *_sends.front();
        _sends.pop_front();
        op.done(op);
    }
    void batch_end() {
        if (_socket != nullptr) _socket->handler->on_batch_end();
    }

    // The identifier of a command under way, or of none.
    uint16_t cid() {
        const uint8_t which = _in.byte();
        if (which >= 0xf0) return _in.word();
        std::vector<uint16_t> out;
        for (const fuzz_request& r : _requests)
            if (r.out) out.push_back(r.command.cid);
        return out.empty() ? which : out[which % out.size()];
    }
    void send_response() {
        tcp::capsule_resp pdu{};
        header(pdu, pdu_type::capsule_resp, 0);
        pdu.ch.plen = sizeof pdu + (_header_digest ? 4 : 0);
        pdu.completion.cid = cid();
        pdu.completion.status_field = _in.byte() & 1 ? _in.word() : uint16_t{0};
        deliver_pdu(pdu, {});
    }
    void send_data() {
        tcp::c2h_data pdu{};
        header(pdu, pdu_type::c2h_data, _in.byte() & (pdu_flag::last | pdu_flag::success));
        pdu.cccid = cid();
        const uint16_t length = _in.word();
        pdu.datao = _in.byte() * 512u;
        pdu.datal = length;
        pdu.ch.pdo = static_cast<uint8_t>(sizeof pdu + (_header_digest ? 4 : 0) + (_in.byte() & 0x1c));
        pdu.ch.plen = tcp::pdu_length(pdu.ch.pdo, length, _data_digest);
        if (_data_digest) pdu.ch.flags |= pdu_flag::data_digest;
        deliver_pdu(pdu, std::vector<std::byte>(length, std::byte{0x77}));
    }
    void send_r2t() {
        tcp::r2t pdu{};
        header(pdu, pdu_type::r2t, 0);
        pdu.ch.plen = sizeof pdu + (_header_digest ? 4 : 0);
        pdu.cccid = cid();
        pdu.ttag = _in.byte();
        pdu.r2to = _in.byte() * 512u;
        pdu.r2tl = _in.word();
        deliver_pdu(pdu, {});
    }
    void mutate_next() {
        _mutate_at = _in.byte() % 32;
        _mutate_with = _in.byte();
    }
    template <class Pdu>
    void header(Pdu& pdu, pdu_type type, unsigned flags) const {
        pdu.ch = {.type = raw(type),
                  .flags = static_cast<uint8_t>(flags | (_header_digest ? pdu_flag::header_digest : 0u)),
                  .hlen = sizeof pdu,
                  .pdo = 0,
                  .plen = sizeof pdu};
    }
    template <class Pdu>
    void deliver_pdu(Pdu pdu, const std::vector<std::byte>& data) {
        if (_mutate_with != 0 && _mutate_at < sizeof pdu) {
            auto* bytes = reinterpret_cast<uint8_t*>(&pdu);
            bytes[_mutate_at] ^= _mutate_with;
        }
        std::vector<std::byte> all(sizeof pdu);
        std::memcpy(all.data(), &pdu, sizeof pdu);
        const auto append_digest = [&all, this](std::span<const std::byte> of) {
            const le32 crc = accel::crc32c(of) ^ (_mutate_at == 31 ? _mutate_with : 0u);
            const auto* bytes = reinterpret_cast<const std::byte*>(&crc);
            all.insert(all.end(), bytes, bytes + 4);
        };
        if (_header_digest) append_digest(std::vector<std::byte>(all));
        if (!data.empty()) {
            all.resize(std::max<std::size_t>(all.size(), pdu.ch.pdo));
            all.insert(all.end(), data.begin(), data.end());
            if (_data_digest) append_digest(data);
        }
        _mutate_with = 0;
        deliver(all.data(), all.size());
    }

    // Hands bytes over as a socket would: each piece is its own memory, gone afterwards.
    void deliver(const void* data, std::size_t size) {
        const auto* at = static_cast<const std::byte*>(data);
        while (size != 0 && _socket != nullptr && !_socket->closing) {
            const std::size_t n = _piece == 0 ? size : std::min<std::size_t>(size, _piece);
            const std::vector<std::byte> piece(at, at + n);
            const std::size_t taken = _socket->handler->on_data(piece);
            VARVE_ASSERT(taken == n);
            at += n;
            size -= n;
        }
        batch_end();
    }

    void finish() {
        _queue->abandon(error(errc::cancelled));
        while (!_sends.empty()) sent();
        if (_socket != nullptr) {
            VARVE_ASSERT(_socket->closing);
            _socket->handler->on_closed(0);
        }
        _queue->flush();  // what was submitted late
        for (const fuzz_request& r : _requests) {
            VARVE_ASSERT(!r.out);
            r.check();
        }
        VARVE_ASSERT(_sends.empty() && _queue->under_way() == 0);
    }

    input& _in;
    bool _header_digest = false, _data_digest = false;
    fuzz_socket* _socket = nullptr;
    std::deque<env::send_op*> _sends;
    std::deque<fuzz_request> _requests;
    std::unique_ptr<tcp_queue_pair> _queue;
    std::size_t _piece = 0;
    unsigned _mutate_at = 0;
    uint8_t _mutate_with = 0;
};

int run(input in) {
    session(in).run();
    return 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { return run(input(data, size)); }
