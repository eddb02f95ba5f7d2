// What the host itself costs for one I/O: a controller of memory answers each batch of commands with a prepared stream,
// so that no kernel is in the figure. Also counts allocations, of which there must be none.
#include <benchmark/benchmark.h>

#include <malloc.h>

#include <cstring>
#include <memory>
#include <vector>

#include "accel/crc32c.h"
#include "nvme/host/commands.h"
#include "nvme/host/tcp_queue_pair.h"

namespace varve::nvme::host {
namespace {

// Answers reads (and writes in a capsule) with what a controller would send, without reading more than the headers.
class answering_socket final : public env::socket {
  public:
    answering_socket(answering_socket*& self, uint32_t block, bool digests, bool success_flag)
        : _block(block), _digests(digests), _success_flag(success_flag), _payload(block) {
        self = this;
        _stream.reserve(256 * (block + 256));
    }
    void start(env::socket_handler& h) noexcept override { _handler = &h; }
    void send(env::send_op& op) noexcept override {
        for (uint32_t i = 0; i < op.iov_count; ++i) parse(op.iov[i]);
        _sent.push(op);
    }
    void resume_receive() noexcept override {}
    void close() noexcept override { _closing = true; }
    const env::address& local() const noexcept override { return _address; }
    const env::address& peer() const noexcept override { return _address; }

    // Delivers the answers to what was sent. False when there were none.
    bool turn() {
        while (env::send_op* op = _sent.pop()) op->done(*op);
        if (_closing) {
            _handler->on_closed(0);
            return false;
        }
        if (_stream.empty()) return false;
        _delivered.swap(_stream);
        _stream.clear();
        _handler->on_data(_delivered);
        _handler->on_batch_end();
        return true;
    }

  private:
    void append(const void* data, std::size_t size) {
        const auto* bytes = static_cast<const std::byte*>(data);
        _stream.insert(_stream.end(), bytes, bytes + size);
    }
    template <class Pdu>
    void append_pdu(Pdu& pdu, tcp::pdu_type type, unsigned flags, uint32_t data) {
        const uint32_t header = sizeof pdu + (_digests ? 4 : 0);
        flags |= _digests ? tcp::pdu_flag::header_digest | (data != 0 ? tcp::pdu_flag::data_digest : 0u) : 0u;
        pdu.ch = {.type = raw(type),
                  .flags = static_cast<uint8_t>(flags),
                  .hlen = sizeof pdu,
                  .pdo = static_cast<uint8_t>(data != 0 ? header : 0),
                  .plen = header + data + (_digests && data != 0 ? 4 : 0)};
        append(&pdu, sizeof pdu);
        if (_digests) append_digest({reinterpret_cast<const std::byte*>(&pdu), sizeof pdu});
    }
    void append_digest(std::span<const std::byte> of) {
        const le32 crc = accel::crc32c(of);
        append(&crc, sizeof crc);
    }
    void parse(const iovec& piece) {
        const auto* at = static_cast<const std::byte*>(piece.iov_base);
        const auto* end = at + piece.iov_len;
        while (at < end) {
            if (_skip != 0) {
                const auto n = std::min<std::size_t>(_skip, static_cast<std::size_t>(end - at));
                at += n;
                _skip -= n;
                continue;
            }
            tcp::capsule_cmd pdu;
            std::memcpy(&pdu.ch, at, sizeof pdu.ch);
            _skip = pdu.ch.plen;
            if (pdu.ch.type == raw(tcp::pdu_type::ic_req)) {
                tcp::ic_resp answer{};
                answer.ch = {.type = raw(tcp::pdu_type::ic_resp), .flags = 0, .hlen = 128, .pdo = 0, .plen = 128};
                answer.maxh2cdata = 131072;
                answer.dgst = _digests ? 3 : 0;
                append(&answer, sizeof answer);
            } else {
                std::memcpy(&pdu, at, sizeof pdu);
                this->answer(pdu.command);
            }
        }
    }
    void answer(const sqe& c) {
        const bool reads = c.opcode == raw(nvm_opcode::read);
        if (reads) {
            tcp::c2h_data data{};
            data.cccid = c.cid;
            data.datal = _block;
            append_pdu(data, tcp::pdu_type::c2h_data,
                       tcp::pdu_flag::last | (_success_flag ? tcp::pdu_flag::success : 0u), _block);
            append(_payload.data(), _payload.size());
            if (_digests) append_digest(_payload);
        }
        if (reads && _success_flag) return;
        tcp::capsule_resp response{};
        response.completion.cid = c.cid;
        append_pdu(response, tcp::pdu_type::capsule_resp, 0, 0);
    }

    const uint32_t _block;
    const bool _digests, _success_flag;
    bool _closing = false;
    std::size_t _skip = 0;
    std::vector<std::byte> _payload, _stream, _delivered;
    queue<env::send_op> _sent;
    env::socket_handler* _handler = nullptr;
    env::address _address;
};

struct again : request {
    queue_pair* on = nullptr;
    uint64_t* done_count = nullptr;
    bool* stopping = nullptr;
};

// Arguments: queue depth, bytes, digests, SUCCESS flag, writes.
void io(benchmark::State& state) {
    const auto depth = static_cast<uint16_t>(state.range(0));
    const auto bytes = static_cast<uint32_t>(state.range(1));
    const bool digests = state.range(2) != 0, writes = state.range(4) != 0;
    answering_socket* controller = nullptr;
    tcp_queue_pair q(nullptr, {.qid = 1, .entries = 129, .in_capsule_max = 8192},
                     {.header_digest = digests, .data_digest = digests},
                     std::make_unique<answering_socket>(controller, bytes, digests, state.range(3) != 0));
    controller->turn();
    std::vector<std::byte> memory(static_cast<std::size_t>(depth) * bytes);
    std::vector<std::unique_ptr<again>> requests;
    uint64_t done = 0;
    bool stopping = false;
    for (std::size_t i = 0; i < depth; ++i) {
        again& r = *requests.emplace_back(std::make_unique<again>());
        r.on = &q;
        r.done_count = &done;
        r.stopping = &stopping;
        r.command = block_command(writes ? nvm_opcode::write : nvm_opcode::read, 1, i, bytes / 512);
        r.set_data(std::span(memory).subspan(i * bytes, bytes));
        r.done = [](request& over) noexcept {
            auto& mine = static_cast<again&>(over);
            ++*mine.done_count;
            if (!*mine.stopping) mine.on->submit(mine);
        };
        q.submit(r);
    }
    q.flush();
    for (int i = 0; i < 100; ++i) controller->turn();  // until every buffer has its size
    const auto before = mallinfo2().uordblks;
    done = 0;
    for (auto _ : state) controller->turn();
    state.SetItemsProcessed(static_cast<int64_t>(done));
    if (mallinfo2().uordblks != before) state.SkipWithError("memory was allocated and kept");
    stopping = true;
    while (controller->turn()) {
    }
    q.abandon(error(errc::cancelled));
    controller->turn();
}
BENCHMARK(io)
    ->ArgNames({"depth", "bytes", "digests", "success", "writes"})
    ->Args({128, 4096, 0, 0, 0})
    ->Args({128, 4096, 0, 1, 0})
    ->Args({128, 4096, 1, 0, 0})
    ->Args({128, 512, 0, 1, 0})
    ->Args({1, 512, 0, 1, 0})
    ->Args({128, 4096, 0, 0, 1})
    ->Args({128, 4096, 1, 0, 1});

}  // namespace
}  // namespace varve::nvme::host
