// The requests that are not connections: waking, listening, watching, connecting. Included by the loop alone.
//
// Their memory must outlive their last answer, which comes after the handle that stands for them was destroyed: the
// handle abandons the record, and the record frees itself.
#pragma once

#include "env/linux/uring/loop.h"

namespace varve::env::os_linux::uring {

class loop::owned_request : public request, public list_node<> {
  public:
    virtual ~owned_request() = default;
};

// Ends a wait() when the loop's eventfd is written. Asked once: each write is an edge, the counter need not be read.
class loop::waking final : public owned_request {
  public:
    waking(loop& home, int number) noexcept : _home(home), _number(number) {}
    void prepare(io_uring_sqe& entry) noexcept override;
    void answered(int32_t outcome, uint32_t flags) noexcept override;

  private:
    loop& _home;
    const int _number;
};

// A request that is asked again until abandoned.
class loop::recurring_request : public owned_request {
  public:
    explicit recurring_request(loop& home) noexcept : _home(home) { _home.began(); }
    void arm() noexcept {
        _armed = true;
        _home.ask(*this);
    }
    // By the handle, also from inside of the callback.
    void abandon() noexcept;
    void answered(int32_t outcome, uint32_t flags) noexcept final;

  protected:
    bool abandoned() const noexcept { return _abandoned; }
    virtual void let_go() noexcept {}                 // abandoned: what can go before the last answer
    virtual void take(int32_t outcome) noexcept = 0;  // an answer; the callback

    loop& _home;

  private:
    bool _armed = false, _abandoned = false, _inside = false;
};

class loop::listening final : public recurring_request {
  public:
    listening(loop& home, listening_socket opened, accept_handler& handler) noexcept
        : recurring_request(home), _opened(std::move(opened)), _handler(handler) {}
    const address& local() const noexcept { return _opened.local; }
    void prepare(io_uring_sqe& entry) noexcept override;

  private:
    void let_go() noexcept override;
    void take(int32_t outcome) noexcept override;

    listening_socket _opened;
    accept_handler& _handler;
    // There was no free descriptor: the kernel would say so again at once, so we wait for a connection first.
    bool _starved = false;
};

class loop::watching final : public recurring_request {
  public:
    watching(loop& home, int number, work& on_readable) noexcept
        : recurring_request(home), _number(number), _work(on_readable) {}
    void prepare(io_uring_sqe& entry) noexcept override;

  private:
    void take(int32_t outcome) noexcept override;

    const int _number;
    work& _work;
};

class loop::connecting final : public owned_request {
  public:
    connecting(loop& home, const socket_name& name, descriptor connection, connect_handler& handler) noexcept
        : _home(home), _name(name), _connection(std::move(connection)), _handler(handler) {}
    void prepare(io_uring_sqe& entry) noexcept override;
    void answered(int32_t outcome, uint32_t flags) noexcept override;

  private:
    loop& _home;
    const socket_name _name;
    descriptor _connection;
    connect_handler& _handler;
};

class loop::listener_handle final : public env::listener {
  public:
    explicit listener_handle(listening& record) noexcept : _record(record) {}
    ~listener_handle() override { _record.abandon(); }
    const address& local() const noexcept override { return _record.local(); }

  private:
    listening& _record;
};

class loop::watch_handle final : public env::watch {
  public:
    explicit watch_handle(watching& record) noexcept : _record(record) {}
    ~watch_handle() override { _record.abandon(); }

  private:
    watching& _record;
};

}  // namespace varve::env::os_linux::uring
