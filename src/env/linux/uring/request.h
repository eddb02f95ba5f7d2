// A record the kernel answers to, embedded in or owned by whatever asks. It must live until its last answer.
#pragma once

#include <linux/io_uring.h>

#include <cstdint>

namespace varve::env::os_linux::uring {

class request {
  public:
    // Fills in a cleared entry, all but its user_data.
    virtual void prepare(io_uring_sqe& entry) noexcept = 0;
    // IORING_CQE_F_MORE in `flags` tells that further answers follow.
    virtual void answered(int32_t outcome, uint32_t flags) noexcept = 0;

    request* next = nullptr;  // the loop's: waits for room in the submission queue

  protected:
    ~request() = default;
};

}  // namespace varve::env::os_linux::uring
