#include "env/linux/blocking_threads.h"

#include <pthread.h>
#include <signal.h>

namespace varve::env::os_linux {

blocking_threads::~blocking_threads() {
    {
        std::lock_guard lock(_mutex);
        _ending = true;
    }
    _news.notify_all();
    for (std::thread& each : _threads) each.join();
    VARVE_ASSERT(_queue.empty());
}

void blocking_threads::submit(work& w) {
    std::lock_guard lock(_mutex);
    _queue.push(w);
    ++_queued;
    if (_queued > _idle && _threads.size() < threads_max) {
        // Signals are for the threads that know about them.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        _threads.emplace_back([this] { serve(); });
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
    _news.notify_one();
}

void blocking_threads::serve() {
    pthread_setname_np(pthread_self(), "varve_helper");
    std::unique_lock lock(_mutex);
    for (;;) {
        ++_idle;
        _news.wait(lock, [this] { return _ending || !_queue.empty(); });
        --_idle;
        work* mine = _queue.pop();
        if (mine == nullptr) return;
        --_queued;
        lock.unlock();
        mine->run(*mine);
        lock.lock();
    }
}

}  // namespace varve::env::os_linux
