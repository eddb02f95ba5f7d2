// Linux AIO: direct reads and writes without a thread each. What is started in a turn goes to the kernel in one call;
// an eventfd in the epoll set tells when something has finished.
#pragma once

#include <libaio.h>

#include <memory>
#include <vector>

#include "env/linux/descriptor.h"
#include "env/linux/file_steps.h"
#include "util/list.h"
#include "util/result.h"

namespace varve::env::os_linux::epoll {

class aio {
  public:
    // Null where the kernel has none to give (aio-max-nr).
    static std::unique_ptr<aio> make(const zero_pages& zeroes);
    ~aio();
    aio(const aio&) = delete;

    // Whether this operation is of the kind that does not block here: direct, and nothing but reading or writing.
    static bool suits(const file_op& op) noexcept;

    void start(file_op& op) noexcept { _waiting.push(op); }
    // Hands over what was started, as far as there is room in the kernel.
    void submit() noexcept;
    // Takes what has finished off the kernel; an operation that is over is moved to `done`.
    void reap(queue<file_op>& done) noexcept;

    // Something is left to do that no event will tell of.
    bool restless() const noexcept { return !_refused.empty() || (!_waiting.empty() && _free.size() == entries); }
    int descriptor_to_watch() const noexcept { return _news.get(); }

  private:
    static constexpr unsigned entries = 512;

    explicit aio(const zero_pages& zeroes);
    void prepare(iocb& control, file_op& op) noexcept;
    void answered(file_op& op, int64_t answer, queue<file_op>& done) noexcept;

    const zero_pages& _zeroes;
    io_context_t _context = nullptr;
    descriptor _news;
    queue<file_op> _waiting;
    std::vector<iocb> _controls;
    std::vector<iocb*> _free;  // last in, first out
    // What the kernel would not take: it goes back through reap().
    struct refusal {
        file_op* op;
        int64_t answer;
    };
    std::vector<refusal> _refused;
};

}  // namespace varve::env::os_linux::epoll
