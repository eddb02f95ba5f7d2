// OS threads for what may block: name resolution, and under epoll buffered files, fdatasync and fallocate.
// Started when needed, kept until the system goes.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "util/list.h"
#include "util/work.h"

namespace varve::env::os_linux {

class blocking_threads {
  public:
    blocking_threads() = default;
    ~blocking_threads();
    blocking_threads(const blocking_threads&) = delete;

    // Any thread. Runs w on some helper.
    void submit(work& w);

  private:
    void serve();

    static constexpr std::size_t threads_max = 4;
    std::mutex _mutex;
    std::condition_variable _news;
    queue<work> _queue;
    std::size_t _queued = 0;
    std::size_t _idle = 0;
    bool _ending = false;
    std::vector<std::thread> _threads;
};

}  // namespace varve::env::os_linux
