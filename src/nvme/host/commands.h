// Commands as submission queue entries, and what their answers mean to people.
#pragma once

#include <coroutine>
#include <string_view>

#include "nvme/host/queue_pair.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/spec.h"
#include "util/result.h"

namespace varve::nvme::host {

// Read, write, compare, write zeroes: `blocks` from 1 to 65536; `dword12` are further bits (namespace cdw12).
constexpr sqe block_command(nvm_opcode opcode, uint32_t nsid, uint64_t lba, uint32_t blocks,
                            uint32_t dword12 = 0) noexcept {
    sqe c{};
    c.opcode = raw(opcode);
    c.nsid = nsid;
    c.set_slba(lba);
    c.cdw12 = (blocks - 1) | dword12;
    return c;
}
constexpr sqe flush_command(uint32_t nsid) noexcept {
    sqe c{};
    c.opcode = raw(nvm_opcode::flush);
    c.nsid = nsid;
    return c;
}
// `ranges` from 1 to 256: how many dsm_range the data holds.
constexpr sqe dsm_command(uint32_t nsid, uint32_t ranges, uint32_t attributes) noexcept {
    sqe c{};
    c.opcode = raw(nvm_opcode::dataset_management);
    c.nsid = nsid;
    c.cdw10 = ranges - 1;
    c.cdw11 = attributes;
    return c;
}
constexpr sqe identify_command(cns what, uint32_t nsid = 0, command_set set = command_set::nvm) noexcept {
    sqe c{};
    c.opcode = raw(admin_opcode::identify);
    c.nsid = nsid;
    c.cdw10 = raw(what);
    c.cdw11 = static_cast<uint32_t>(raw(set)) << 24;
    return c;
}
constexpr sqe get_log_command(const log_request& what, uint32_t nsid = nsid_all) noexcept {
    sqe c{};
    c.opcode = raw(admin_opcode::get_log_page);
    c.nsid = nsid;
    what.encode(c);
    return c;
}
constexpr sqe set_feature_command(feature which, uint32_t value) noexcept {
    sqe c{};
    c.opcode = raw(admin_opcode::set_features);
    c.cdw10 = raw(which);
    c.cdw11 = value;
    return c;
}
constexpr sqe get_feature_command(feature which, feature_select what = feature_select::current) noexcept {
    sqe c{};
    c.opcode = raw(admin_opcode::get_features);
    c.cdw10 = raw(which) | static_cast<uint32_t>(raw(what)) << 8;
    return c;
}
constexpr sqe plain_admin_command(admin_opcode opcode) noexcept {
    sqe c{};
    c.opcode = raw(opcode);
    return c;
}

// The error code nearest to a status.
errc errc_of(status s) noexcept;
// Nothing when the request succeeded, else an error that says `what` was done and what the controller answered.
result<> outcome_of(const request& r, std::string_view what);

// co_await execute(queue, r): submits and waits. What the controller answered is in r; this fails nothing.
class execution {
  public:
    execution(queue_pair& on, request& r) noexcept : _on(on), _request(r) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        _waiter = waiter;
        _request.context = this;
        _request.done = [](request& r) noexcept { static_cast<execution*>(r.context)->_waiter.resume(); };
        _on.submit(_request);
    }
    void await_resume() const noexcept {}

  private:
    queue_pair& _on;
    request& _request;
    std::coroutine_handle<> _waiter;
};
inline execution execute(queue_pair& on, request& r) noexcept { return {on, r}; }

// Two fused commands, submitted together; waits for both.
class fused_execution {
  public:
    fused_execution(queue_pair& on, request& first, request& second) noexcept
        : _on(on), _first(first), _second(second) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept {
        _waiter = waiter;
        for (request* r : {&_first, &_second}) {
            r->context = this;
            r->done = [](request& over) noexcept {
                auto& self = *static_cast<fused_execution*>(over.context);
                if (--self._left == 0) self._waiter.resume();
            };
        }
        _first.command.set_flags(fuse::first, data_pointer::sgl);
        _second.command.set_flags(fuse::second, data_pointer::sgl);
        _on.submit_pair(_first, _second);
    }
    void await_resume() const noexcept {}

  private:
    queue_pair& _on;
    request &_first, &_second;
    unsigned _left = 2;
    std::coroutine_handle<> _waiter;
};

}  // namespace varve::nvme::host
