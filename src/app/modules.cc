#include "app/modules.h"

#include "bdev/methods/service.h"
#include "modules/delay.h"
#include "modules/error.h"
#include "modules/file.h"
#include "modules/lvol/module.h"
#include "modules/malloc.h"
#include "modules/null.h"
#include "modules/passthru.h"
#include "server/kept_options.h"
#include "server/scheduler.h"
#include "targets/nvmf/methods/service.h"

namespace varve::app {

namespace {

std::unique_ptr<bdev::service> make_bdev(server::instance& of) {
    auto made = std::make_unique<bdev::service>(of.threads());
    made->add(modules::make_passthru());
    made->add(modules::make_error());
    made->add(modules::make_delay());
    made->add(modules::make_malloc());
    made->add(modules::make_null());
    made->add(modules::make_aio());
    made->add(modules::make_uring());
    made->add(modules::make_lvol(of.system_log().component("lvol"), of.jobs()));
    server::notifications& events = of.events();
    events.add_type("bdev_register");
    events.add_type("bdev_unregister");
    made->devices().set_observer([&events](bool came, const std::string& name) {
        events.add(came ? "bdev_register" : "bdev_unregister", name);
    });
    return made;
}

}  // namespace

bdev::registry& add_modules(server::instance& to) {
    to.add(server::make_scheduler(to.threads()));
    to.add(server::make_sock());
    to.add(server::make_iobuf());
    to.add(server::make_accel());
    auto bdevs = make_bdev(to);
    bdev::registry& devices = bdevs->devices();
    to.add(std::move(bdevs));
    to.add(std::make_unique<targets::nvmf::service>(to.threads(), devices, to.system_log().component("nvmf")));
    to.add_old_names();
    return devices;
}

}  // namespace varve::app
