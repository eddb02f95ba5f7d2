// bdev_lvol_check: varve fsck for a store that serves.
#include <fmt/format.h>

#include "blob/online/online_check.h"
#include "modules/lvol/methods.h"
#include "modules/lvol/volumes.h"

namespace varve::modules::lvol {

namespace {

task<json::value> check(volumes& all, store_choice p) {
    volume_store* s = co_await all.store(p.uuid, p.lvs_name);
    gate::holder stays = co_await s->begin();
    std::vector<blob::check::finding> found;
    auto work = [&](jobs::job& j) -> task<> { found = co_await blob::online_check(s->blobs(), j).run(); };
    co_await all.jobs().run({.kind = "check", .object = s->name(), .unit = "blobs", .owner = s}, work);
    uint64_t errors = 0;
    json::array list;
    for (const blob::check::finding& f : found) {
        const bool error = f.how_bad == blob::check::severity::error;
        errors += error;
        json::object one{
            {"kind", blob::check::name_of(f.what)}, {"severity", error ? "error" : "note"}, {"text", f.text}};
        json::array names;
        for (blob::blob_id id : f.blobs) {
            if (const volume* v = s->find(id)) names.push_back(v->alias());
        }
        one.add("lvols", std::move(names));
        list.push_back(std::move(one));
    }
    if (errors != 0) all.out().error(fmt::format("lvstore {}: the check found {} errors", s->name(), errors));
    co_return json::object{
        {"lvs_name", s->name()}, {"clean", errors == 0}, {"errors", errors}, {"findings", std::move(list)}};
}

}  // namespace

void add_check_methods(rpc::registry& to, volumes& all) {
    to.add(rpc::make_method("bdev_lvol_check",
                            "Compare a store with what lies on its device, while it serves, and change nothing", check)
               .bind(all));
}

}  // namespace varve::modules::lvol
