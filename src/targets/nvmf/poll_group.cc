#include "targets/nvmf/poll_group.h"

#include <algorithm>
#include <cstring>

#include "bdev/device.h"
#include "env/system.h"
#include "targets/nvmf/target.h"
#include "thread/awaits.h"
#include "thread/runtime.h"

namespace varve::targets::nvmf {

poll_group::poll_group(target& of, thread::thread& on, std::string name)
    : _target(of), _thread(on), _buffers(thread::buffer_pool::of(on)), _name(std::move(name)) {}

poll_group::~poll_group() { VARVE_ASSERT(connections.empty()); }

task<std::unique_ptr<poll_group>> poll_group::make(target& of, thread::thread& on, std::string name) {
    co_return std::unique_ptr<poll_group>(new poll_group(of, on, std::move(name)));
}

task<> poll_group::end(std::unique_ptr<poll_group> group) {
    group->ending = true;                                // none is added from here on
    for (qpair& q : group->connections) q.disconnect();  // those without a controller; they end later
    while (!group->connections.empty()) co_await sleep(1 * milliseconds);
    co_await group->tasks.close();
}

void poll_group::spawn(const char* what, task<> body) {
    const logger& log = _target.log();
    bool started =
        tasks.spawn(std::move(body), [&log, what](error e) { log.error(std::string(what) + ": " + e.message()); });
    VARVE_ASSERT(started);
}

namespace_table& poll_group::table(const subsystem& of) { return _tables[&of]; }

task<> poll_group::drop_table(const subsystem& of) {
    _tables.erase(&of);
    co_return;
}

task<> poll_group::take_view(const subsystem& of, uint32_t nsid, bdev::descriptor& device, view_facts facts) {
    namespace_table& views = table(of);
    if (views.size() < nsid) views.resize(nsid);
    auto& view = views[nsid - 1];
    if (!view) view = std::make_unique<namespace_view>();
    if (!view->held) view->held = device.channel();
    view->num_blocks = facts.num_blocks;
    view->block_shift = facts.block_shift;
    view->restricted = facts.restricted;
    view->ana_group = facts.ana_group;
    if (facts.blank_size != 0 && !_blank) {
        if (auto made = _target.system().world().mem().allocate(facts.blank_size)) {
            _blank = std::move(*made);
            std::memset(_blank.data(), 0, _blank.size());
        }  // else the device clears memory itself
    }
    view->blank = _blank.data();
    view->blank_size = static_cast<uint32_t>(std::min<std::size_t>(facts.blank_size, _blank.size()));
    view->channel = &*view->held;
    co_return;
}

namespace {

struct until_drained {
    namespace_view& view;
    bool await_ready() const noexcept { return view.outstanding == 0; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { view.drained = waiter; }
    void await_resume() const noexcept {}
};

}  // namespace

task<> poll_group::close_view(const subsystem& of, uint32_t nsid) {
    namespace_table& views = table(of);
    if (views.size() < nsid || !views[nsid - 1]) co_return;
    namespace_view& view = *views[nsid - 1];
    view.channel = nullptr;  // new commands get Invalid Namespace
    co_await until_drained{view};
    co_await yield();  // whoever drained it still has it on the stack
    view.held = {};
}

}  // namespace varve::targets::nvmf
