// A channel whose device is done at once: requests are gathered and completed in the next batch of the thread, so that
// nothing recurses and what the first needs from memory is on its way while the others are submitted.
#pragma once

#include "bdev/channel.h"
#include "util/list.h"

namespace varve::bdev {

// Whether it was there.
inline bool take_from(queue<work>& line, const io& r) noexcept {
    bool found = false;
    for (work* w = line.take_all(); w != nullptr;) {
        work* next = w->next;
        if (w == &r) {
            found = true;
        } else {
            line.push(*w);
        }
        w = next;
    }
    return found;
}

class batching_channel : public channel {
  public:
    batching_channel() noexcept {
        _drain.of = this;
        _drain.run = [](work& w) noexcept {
            batching_channel& me = *static_cast<drain&>(w).of;
            me._queued = false;
            me.run_batch(me._batch.take_all());
        };
    }

  protected:
    void gather(io& r) noexcept {
        _batch.push(r);
        if (!_queued) {
            _queued = true;
            on_thread().defer(_drain);
        }
    }
    // The next request of the chain, which must be read before the request completes.
    static io* after(const io& r) noexcept { return static_cast<io*>(r.next); }
    // Does and completes what was gathered, linked through next.
    virtual void run_batch(work* first) noexcept = 0;

    bool do_abort(io& r) noexcept override {
        const bool found = take_from(_batch, r);
        if (found) complete_later(r, status::aborted);
        return found;
    }

  private:
    struct drain : work {
        batching_channel* of = nullptr;
    };
    queue<work> _batch;
    drain _drain;
    bool _queued = false;
};

}  // namespace varve::bdev
