#include "env/linux/epoll/loop.h"

#include <sys/socket.h>
#include <time.h>

#include <cerrno>

#include "env/linux/epoll/socket.h"
#include "util/assert.h"

namespace varve::env::os_linux::epoll {

class loop::listening final : public env::listener, private event_source {
  public:
    listening(loop& home, listening_socket opened, accept_handler& handler)
        : _home(home), _opened(std::move(opened)), _handler(handler) {
        _home.began();
        _home.set_interest(_opened.socket.get(), *this, _interest, EPOLLIN);
    }
    ~listening() override {
        if (_gone != nullptr) *_gone = true;
        _home.set_interest(_opened.socket.get(), *this, _interest, 0);
        _home.forget(*this);
        _home.ended();
    }
    const address& local() const noexcept override { return _opened.local; }

  private:
    void ready(uint32_t) noexcept override {
        bool gone = false;
        _gone = &gone;
        for (int i = 0; i < accepts_a_turn && !gone; ++i) {
            descriptor fresh(::accept4(_opened.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (fresh) {
                _home.deliver_accepted(std::move(fresh), _opened.local, _handler);  // may destroy this
            } else if (errno == EMFILE || errno == ENFILE) {
                _home.refuse_one(_opened.socket.get());
            } else if (errno != EINTR && errno != ECONNABORTED) {
                break;
            }
        }
        if (!gone) _gone = nullptr;
    }

    static constexpr int accepts_a_turn = 64;
    loop& _home;
    listening_socket _opened;
    accept_handler& _handler;
    uint32_t _interest = 0;
    bool* _gone = nullptr;  // tells a running ready() that a callback destroyed this
};

class loop::watching final : public env::watch, private event_source {
  public:
    watching(loop& home, int number, work& on_readable) : _home(home), _number(number), _work(on_readable) {
        _home.began();
        _home.set_interest(_number, *this, _interest, EPOLLIN);
    }
    ~watching() override {
        _home.set_interest(_number, *this, _interest, 0);
        _home.forget(*this);
        _home.ended();
    }

  private:
    void ready(uint32_t) noexcept override {
        _home.ran_something();
        _work.run(_work);  // may destroy this
    }

    loop& _home;
    const int _number;
    work& _work;
    uint32_t _interest = 0;
};

// A connection being made; destroys itself when it has told.
class loop::connecting final : private event_source {
  public:
    connecting(loop& home, descriptor socket, connect_handler& handler)
        : _home(home), _socket(std::move(socket)), _handler(handler) {
        _home.set_interest(_socket.get(), *this, _interest, EPOLLOUT);
    }

  private:
    void ready(uint32_t) noexcept override {
        std::unique_ptr<connecting> mine(this);
        int failure = 0;
        socklen_t size = sizeof failure;
        if (::getsockopt(_socket.get(), SOL_SOCKET, SO_ERROR, &failure, &size) != 0) failure = errno;
        _home.set_interest(_socket.get(), *this, _interest, 0);
        _home.forget(*this);
        _home.deliver_connected(std::move(_socket), failure, _handler);
    }

    loop& _home;
    descriptor _socket;
    connect_handler& _handler;
    uint32_t _interest = 0;
};

// An operation on its way through a helper thread. Kept for the next one afterwards.
struct loop::file_job : work {
    loop* home = nullptr;
    file_op* op = nullptr;
    file_job* next_spare = nullptr;

    static void perform_all(work& self) noexcept {
        auto& job = static_cast<file_job&>(self);
        while (!take_answer(*job.op, perform(next_step(*job.op, job.home->_around.zeroes)))) {
        }
        job.run = [](work& done) noexcept { static_cast<file_job&>(done).finish(); };
        job.home->hand_back(job);
    }
    void finish() noexcept {
        file_op& finished = *op;
        home->ended();
        home->give_job(*this);
        finished.done(finished);
    }
};

result<std::unique_ptr<env::loop>> loop::make(const surroundings& around) {
    descriptor set(::epoll_create1(EPOLL_CLOEXEC));
    if (!set) return fail(from_errno(errno), "epoll");
    std::unique_ptr<loop> made(new loop(around, std::move(set)));
    if (!made->watch_edges(made->wake_descriptor())) return fail(from_errno(errno), "epoll");
    return made;
}

loop::loop(const surroundings& around, descriptor set)
    : loop_base(around),
      _set(std::move(set)),
      _receive_buffer(std::make_unique_for_overwrite<std::byte[]>(receive_buffer_size)) {}

loop::~loop() {
    while (_spare_jobs != nullptr) delete std::exchange(_spare_jobs, _spare_jobs->next_spare);
}

// An eventfd that only ends the wait: edge-triggered, so that its counter need not be read.
bool loop::watch_edges(int number) noexcept {
    epoll_event edge = {.events = EPOLLIN | EPOLLET, .data = {.ptr = nullptr}};
    return ::epoll_ctl(_set.get(), EPOLL_CTL_ADD, number, &edge) == 0;
}

void loop::set_interest(int number, event_source& source, uint32_t& now, uint32_t events) noexcept {
    if (now == events) return;
    int what = now == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    epoll_event wanted = {.events = events, .data = {.ptr = &source}};
    ::epoll_ctl(_set.get(), what, number, &wanted);
    now = events;
}

void loop::forget(event_source& source) noexcept {
    for (int i = _event_at; i < _event_count; ++i) {
        if (_events[static_cast<std::size_t>(i)].data.ptr == &source)
            _events[static_cast<std::size_t>(i)].data.ptr = nullptr;
    }
}

int loop::wait_for_events(bool may_sleep, time_ns deadline) noexcept {
    const int room = static_cast<int>(_events.size());
    for (;;) {
        timespec left = may_sleep ? time_left(deadline) : timespec{};
        const timespec* limit = may_sleep && deadline == no_deadline ? nullptr : &left;
        int got = ::epoll_pwait2(_set.get(), _events.data(), room, limit, nullptr);
        if (got < 0 && errno == ENOSYS) [[unlikely]] {  // before Linux 5.11, and under valgrind: whole milliseconds
            time_ns left_ns = std::min(left.tv_sec * seconds + left.tv_nsec, 1000 * seconds);
            int left_ms = static_cast<int>((left_ns + milliseconds - 1) / milliseconds);
            got = ::epoll_wait(_set.get(), _events.data(), room, limit == nullptr ? -1 : left_ms);
        }
        if (got >= 0 || errno != EINTR) return std::max(got, 0);
    }
}

void loop::exchange(bool may_sleep, time_ns deadline) noexcept {
    if (_aio) _aio->submit();
    bool restless = !_sent.empty() || (_aio && _aio->restless());
    _event_count = wait_for_events(may_sleep && !restless, deadline);
    run_sent();
    if (_aio) run_finished_files();
    for (_event_at = 0; _event_at < _event_count;) {
        epoll_event& event = _events[static_cast<std::size_t>(_event_at++)];
        if (event.data.ptr != nullptr) static_cast<event_source*>(event.data.ptr)->ready(event.events);
    }
    _event_count = _event_at = 0;
}

void loop::run_sent() noexcept {
    send_op* chain = _sent.take_all();
    while (chain != nullptr) {
        send_op* next = chain->next;
        chain->done(*chain);
        chain = next;
        ran_something();
    }
}

std::unique_ptr<socket_base> loop::make_socket(descriptor connection, address local, address peer) {
    return std::make_unique<socket>(*this, std::move(connection), std::move(local), std::move(peer));
}

void loop::connect_to(const socket_name& name, descriptor socket, connect_handler& handler) {
    if (::connect(socket.get(), name.get(), name.length) != 0 && errno != EINPROGRESS) {
        return fail_connect_later(error(from_errno(errno)), handler);
    }
    new connecting(*this, std::move(socket), handler);
}

result<std::unique_ptr<env::listener>> loop::listen(const address& at, accept_handler& handler) {
    auto opened = open_listener(at);
    if (!opened) return std::unexpected(std::move(opened).error());
    return std::make_unique<listening>(*this, std::move(*opened), handler);
}

result<std::unique_ptr<env::watch>> loop::watch_readable(int number, work& on_readable) {
    return std::make_unique<watching>(*this, number, on_readable);
}

void loop::submit(file_op& op) noexcept {
    op.progress = 0;
    began();
    if (through_aio(op)) return;
    file_job& job = take_job();
    job.op = &op;
    job.run = file_job::perform_all;
    _around.blocking.submit(job);
}

bool loop::through_aio(file_op& op) noexcept {
    if (!aio::suits(op)) return false;
    if (!_aio_tried) {
        _aio_tried = true;
        _aio = aio::make(_around.zeroes);
        if (_aio && !watch_edges(_aio->descriptor_to_watch())) _aio.reset();
    }
    if (_aio) _aio->start(op);
    return _aio != nullptr;
}

void loop::run_finished_files() noexcept {
    queue<file_op> done;
    _aio->reap(done);
    file_op* chain = done.take_all();
    while (chain != nullptr) {
        file_op* next = chain->next;
        ended();
        ran_something();
        chain->done(*chain);
        chain = next;
    }
}

loop::file_job& loop::take_job() {
    if (_spare_jobs == nullptr) {
        auto* fresh = new file_job;
        fresh->home = this;
        return *fresh;
    }
    file_job& taken = *_spare_jobs;
    _spare_jobs = taken.next_spare;
    return taken;
}

void loop::give_job(file_job& job) noexcept {
    job.next_spare = _spare_jobs;
    _spare_jobs = &job;
}

}  // namespace varve::env::os_linux::epoll
