#include "server/connection.h"

#include "json/parse.h"
#include "server/rpc_server.h"
#include "thread/thread.h"
#include "util/assert.h"

namespace varve::server {

namespace {
constexpr std::size_t kept_at_rest = std::size_t{64} << 10;  // larger reply buffers are given back
}

connection::connection(rpc_server& server, thread::thread& home, uint64_t id, std::unique_ptr<env::socket> client)
    : _server(server), _home(home), _id(id), _client(std::move(client)) {
    _sending.owner = this;
    _sending.done = [](env::send_op& op) noexcept { static_cast<sending&>(op).owner->sent(); };
}

connection::~connection() { VARVE_ASSERT(!_sending.busy); }

bool connection::holding_back() const noexcept {
    return _reading && (_server.held() || !_waiting.empty() || _out.size() > high_water);
}

std::size_t connection::on_data(std::span<const std::byte> bytes) noexcept {
    thread::entered in(_home);
    std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size()), rest = all;
    _busy = true;
    while (_reading && !holding_back()) {
        auto document = _split.next(rest);
        if (!document) {
            refuse_and_close(document.error());
        } else if (*document) {
            take(**document);
        } else {
            break;
        }
    }
    if (!_reading) rest = {};
    _busy = false;
    flush();
    _paused = !rest.empty();
    return all.size() - rest.size();
}

// A client may say all it has to say and then only listen: `echo '{...}' | nc -N`.
bool connection::on_peer_end() noexcept {
    thread::entered in(_home);
    _close_after = true;
    return _running == 0 && all_sent();
}

void connection::on_closed(int) noexcept {
    thread::entered in(_home);
    _server.forget(_id);  // destroys this
}

void connection::take(std::string_view document) {
    auto parsed = json::parse(document);
    if (!parsed) return refuse_and_close(parsed.error());
    if (json::array* requests = parsed->items(); requests != nullptr && !requests->empty()) {
        take_batch(std::move(*requests));
    } else {
        _waiting.push_back({0, std::move(*parsed)});
    }
    start_waiting();
}

void connection::take_batch(json::array requests) {
    uint64_t id = _next_batch++;
    _batches[id].left = requests.size();
    for (json::value& r : requests) _waiting.push_back({id, std::move(r)});
}

// There is no telling where the next document would begin.
void connection::refuse_and_close(const error& e) {
    put(error_reply(nullptr, e) + "\n");
    _reading = false;
    _waiting.clear();
    _close_after = true;
}

void connection::start_waiting() {
    while (!_waiting.empty() && _running < max_running) {
        waiting next = std::move(_waiting.front());
        _waiting.pop_front();
        begin(std::move(next));
    }
}

void connection::begin(waiting next) {
    ++_running;
    ticket mine{_id, next.batch};
    auto r = read_request(std::move(next.document));
    if (!r) return finish(mine, error_reply(nullptr, r.error()));
    auto b = _batches.find(next.batch);
    if (b != _batches.end() && b->second.replies.size() > max_batch_reply) {
        return finish(mine, error_reply(r->id, error(errc::too_big, "Message too long: the replies to this batch")));
    }
    _server.run(mine, std::move(*r));
}

void connection::finish(const ticket& of, std::string reply) {
    VARVE_ASSERT(_running > 0);
    --_running;
    if (of.batch == 0) {
        if (!reply.empty()) put(reply + "\n");
    } else if (auto b = _batches.find(of.batch); b != _batches.end()) {
        std::string& replies = b->second.replies;
        if (!reply.empty()) replies += (replies.empty() ? "[" : ",") + reply;
        if (--b->second.left == 0) {
            if (!replies.empty()) put(replies + "]\n");
            _batches.erase(b);
        }
    }
    if (_busy) return;
    _busy = true;  // calls that end at once must not recurse
    start_waiting();
    _busy = false;
    flush();
    resume();
}

void connection::put(std::string_view text) { _out += text; }

void connection::flush() noexcept {
    if (_sending.busy) return;
    if (_out.empty()) {
        if (_close_after && _running == 0) _client->close();
        return;
    }
    _sending.text.swap(_out);
    _sending.vec = {_sending.text.data(), _sending.text.size()};
    _sending.iov = &_sending.vec;
    _sending.iov_count = 1;
    _sending.busy = true;
    _client->send(_sending);
}

void connection::sent() noexcept {
    thread::entered in(_home);
    _sending.busy = false;
    _sending.text.clear();
    if (_sending.text.capacity() > kept_at_rest) _sending.text.shrink_to_fit();
    if (_sending.result != 0) {  // the client has gone; on_closed follows
        _out.clear();
        _reading = false;
    }
    flush();
    resume();
}

void connection::stop_reading() noexcept {
    _reading = false;
    resume();  // bytes that come are dropped, so that the client's end is noticed
}

void connection::resume() noexcept {
    if (!_paused || holding_back()) return;
    _paused = false;
    _client->resume_receive();
}

}  // namespace varve::server
