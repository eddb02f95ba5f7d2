#include "modules/lvol/report.h"

#include "modules/lvol/volumes.h"

namespace varve::modules::lvol {

namespace {

// The uuid of the bdev a blob is an external clone of; empty when it is none.
std::string external_parent_of(const blob::blob_state& b) {
    if (!b.is_external_clone()) return {};
    const std::string* id = b.record.internal_xattrs.find(blob::format::xattr_external_parent);
    return id == nullptr ? std::string() : id->substr(0, id->find('\0'));
}

}  // namespace

json::value describe_for_bdev(const volume& v) {
    const volume_store& s = v.owner();
    const blob::blob_state& b = *v.state();
    json::object out{
        {"lvol_store_uuid", s.uuid().to_string()}, {"base_bdev", s.base_name()},  {"thin_provision", b.thin()},
        {"num_allocated_clusters", b.allocated},   {"snapshot", v.is_snapshot()}, {"clone", b.parent != nullptr}};
    if (b.parent != nullptr) {
        if (const volume* parent = s.find(b.parent->id)) out.add("base_snapshot", parent->name());
    }
    if (v.is_snapshot() && !b.clones.empty()) {
        json::array clones;
        for (const blob::blob_state* c : b.clones) {
            if (const volume* clone = s.find(c->id)) clones.push_back(clone->name());
        }
        out.add("clones", std::move(clones));
    }
    out.add("esnap_clone", b.is_external_clone());
    if (std::string parent = external_parent_of(b); !parent.empty()) out.add("external_snapshot_name", parent);
    return out;
}

json::value describe(const volume& v) {
    const volume_store& s = v.owner();
    const blob::blob_state& b = *v.state();
    json::object out{{"alias", v.alias()},
                     {"uuid", v.uuid().to_string()},
                     {"name", v.name()},
                     {"is_thin_provisioned", b.thin()},
                     {"is_snapshot", v.is_snapshot()},
                     {"is_clone", b.parent != nullptr},
                     {"is_esnap_clone", b.is_external_clone()},
                     {"is_degraded", v.is_degraded()},
                     {"num_allocated_clusters", b.allocated},
                     {"lvs", json::object{{"name", s.name()}, {"uuid", s.uuid().to_string()}}}};
    if (std::string made = creation_time_in(b.record.xattrs); !made.empty()) out.add("creation_time", std::move(made));
    if (!v.trouble().empty()) out.add("degraded_reason", v.trouble());
    return out;
}

json::value describe(const volume_store& s) {
    const blob::store& b = s.blobs();
    json::object out{{"uuid", s.uuid().to_string()},
                     {"name", s.name()},
                     {"base_bdev", s.base_name()},
                     {"total_data_clusters", uint64_t{b.data_clusters()}},
                     {"free_clusters", uint64_t{b.free_clusters()}},
                     {"block_size", uint64_t{b.geometry().io_unit_size}},
                     {"cluster_size", uint64_t{b.geometry().cluster_size}},
                     {"max_growable_size", b.geometry().cluster_count_max() * b.geometry().cluster_size}};
    if (std::string why = s.trouble(); !why.empty()) out.add("degraded_reason", std::move(why));
    return out;
}

}  // namespace varve::modules::lvol
