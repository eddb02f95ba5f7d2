// What Longhorn's branch of SPDK adds about one volume: its attributes, where it has clusters, and to leave its parent.
#include <fmt/format.h>

#include <algorithm>

#include "modules/lvol/methods.h"
#include "modules/lvol/names.h"
#include "modules/lvol/volumes.h"
#include "thread/awaits.h"
#include "util/base64.h"

namespace varve::modules::lvol {

namespace {

constexpr uint64_t clusters_at_once = 16384;  // before others have their turn

struct set_xattr_params {
    std::string name, xattr_name, xattr_value;
    static constexpr auto fields =
        std::tuple{rpc::required(&set_xattr_params::name, "name", "UUID or alias of the lvol"),
                   rpc::required(&set_xattr_params::xattr_name, "xattr_name", "Name of the attribute"),
                   rpc::required(&set_xattr_params::xattr_value, "xattr_value", "Its value from now on")};
};

struct get_xattr_params {
    std::string name, xattr_name;
    static constexpr auto fields =
        std::tuple{rpc::required(&get_xattr_params::name, "name", "UUID or alias of the lvol"),
                   rpc::required(&get_xattr_params::xattr_name, "xattr_name", "Name of the attribute")};
};

struct fragmap_params {
    std::string name;
    uint64_t offset = 0, size = 0;
    static constexpr auto fields =
        std::tuple{rpc::required(&fragmap_params::name, "name", "UUID or alias of the lvol"),
                   rpc::optional(&fragmap_params::offset, "offset", "Bytes from its beginning, whole clusters"),
                   rpc::optional(&fragmap_params::size, "size", "Bytes, whole clusters; 0: the whole lvol")};
};

task<> set_xattr(volumes& all, set_xattr_params p) {
    volume* v = co_await all.find_served(p.name);
    if (is_kept_by_us(p.xattr_name)) {
        co_await fail(error(errc::rpc_invalid_params,
                            fmt::format("Invalid argument: {} is kept by the system itself", p.xattr_name)));
    }
    volume::use works = co_await v->begin_use();
    blob::blob_ref b = co_await v->open();
    p.xattr_value += '\0';  // as SPDK stores text
    co_await late(co_await as_result(v->owner().blobs().set_xattr(b, p.xattr_name, p.xattr_value)));
}

result<std::string> get_xattr(volumes& all, get_xattr_params p) {
    auto v = all.find(p.name);
    if (!v) return fail(std::move(v).error());
    const std::string* value = (*v)->state()->record.xattrs.find(p.xattr_name);
    // Longhorn's client asks every volume for attributes that few have, and knows the answer by this text alone.
    if (value == nullptr) return fail(error(errc::rpc_internal, std::string(text_of(errc::not_found))));
    return value->substr(0, value->find('\0'));
}

// Which of `count` clusters from `first` on the volume has, and how many. As of one moment, unless clusters come one by
// one meanwhile: what changes all of them at once begins it anew.
task<uint64_t> find_allocated(const volume& v, uint64_t first, uint64_t count, std::vector<std::byte>& bits) {
    for (;;) {
        bits.assign((count + 7) / 8, std::byte{});
        const blob::layout* map = v.state()->current.get();
        const uint32_t stamp = v.state()->record.stamp;
        uint64_t allocated = 0;
        bool same = true;
        for (uint64_t i = map->next(first); same && i < std::min(map->size, first + count); i = map->next(i + 1)) {
            bits[(i - first) / 8] |= std::byte{1} << ((i - first) % 8);
            if (++allocated % clusters_at_once != 0) continue;
            co_await yield();
            same = v.state()->current.get() == map && v.state()->record.stamp == stamp;
            if (!same) break;
        }
        if (same) co_return allocated;
    }
}

task<json::value> get_fragmap(volumes& all, fragmap_params p) {
    volume* found = co_await all.find_served(p.name);
    volume::use works = co_await found->begin_use();
    const volume& v = *found;
    const uint64_t size = v.owner().blobs().geometry().cluster_size;
    const uint64_t whole = v.state()->current->size * size;
    const uint64_t bytes = p.size == 0 ? whole : p.size;
    if (p.offset % size != 0 || bytes % size != 0 || p.offset > whole || bytes > whole - p.offset) {
        co_await late(result<>(
            fail(errc::invalid, fmt::format("{} bytes at {} are not whole clusters of {} inside of the {} of {}", bytes,
                                            p.offset, size, whole, p.name))));
    }
    const uint64_t first = p.offset / size, count = bytes / size;
    std::vector<std::byte> bits;
    const uint64_t allocated = co_await find_allocated(v, first, count, bits);
    co_return json::value(json::object{{"cluster_size", size},
                                       {"num_clusters", count},
                                       {"num_allocated_clusters", allocated},
                                       {"fragmap", base64(bits)}});
}

task<> detach_parent(volumes& all, name_params p) {
    volume* v = co_await all.find_served(p.name);
    volume::use works = co_await v->begin_use();
    blob::blob_ref b = co_await v->open();
    co_await late(co_await as_result(v->owner().blobs().detach_parent(b)));
}

}  // namespace

void add_detail_methods(rpc::registry& to, volumes& all) {
    auto add = [&](const char* name, const char* text, auto f) { to.add(rpc::make_method(name, text, f).bind(all)); };
    add("bdev_lvol_set_xattr", "Set an attribute of an lvol", set_xattr);
    add("bdev_lvol_get_xattr", "An attribute of an lvol", get_xattr);
    add("bdev_lvol_get_fragmap", "Which clusters an lvol has itself: a bit for each, the lowest first, in base64",
        get_fragmap);
    add("bdev_lvol_detach_parent", "Leave the parent; what the lvol has not written itself reads as zeroes then",
        detach_parent);
}

}  // namespace varve::modules::lvol
