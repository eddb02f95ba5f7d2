// What logical volumes need of their blobs: the store's own blob, names and uuids (docs/ondisk-blobstore.md section 5).
#include <fmt/format.h>

#include "blob/check/examiner.h"
#include "util/uuid.h"

namespace varve::blob::check {

namespace {

constexpr std::size_t uuid_bytes = 37;  // with its zero

}  // namespace

void examiner::look_at_volumes() {
    if (_super.type_text() != "LVOLSTORE") return;
    const examined_blob* own = _super.super_blob == format::no_blob ? nullptr : _out.find(_super.super_blob);
    if (own == nullptr)
        report(problem::bad_volume, severity::error,
               _super.super_blob == format::no_blob
                   ? std::string("the store of volumes has no super blob, which holds its name and uuid")
                   : fmt::format("blob {:#x}, which holds name and uuid of the store of volumes, is not there",
                                 _super.super_blob));
    std::map<std::string, format::blob_id> names, uuids, own_name, own_uuid;
    for (const examined_blob& b : _out.blobs) {
        if (b.record.access() == format::blob_access::none || b.chain_broken) continue;
        look_at_name(b, &b == own ? own_name : names);
        look_at_uuid(b, &b == own ? own_uuid : uuids);
    }
}

void examiner::look_at_name(const examined_blob& b, std::map<std::string, format::blob_id>& names) {
    const std::string* value = b.record.xattrs.find("name");
    const std::string name = b.name();
    if (value == nullptr || name.empty()) {
        report_blob(
            problem::bad_volume, b,
            fmt::format("blob {:#x}: has no name, which every logical volume has; SPDK would refuse the store", b.id()))
            .repairable = false;
        return;
    }
    if (value->size() > format::spdk_name_value_max)
        report_blob(problem::bad_volume, b,
                    fmt::format("blob {:#x}: its name {} takes {} bytes; SPDK, which reads {}, would refuse the store",
                                b.id(), name, value->size(), format::spdk_name_value_max))
            .how_bad = severity::note;
    auto [found, fresh] = names.emplace(name, b.id());
    if (fresh) return;
    finding& f = report_blob(problem::bad_volume, b,
                             fmt::format("blobs {:#x} and {:#x} are both named {}", found->second, b.id(), name));
    f.repairable = false;
    f.blobs = {found->second, b.id()};
}

void examiner::look_at_uuid(const examined_blob& b, std::map<std::string, format::blob_id>& uuids) {
    const std::string* value = b.record.xattrs.find("uuid");
    const bool shaped = value != nullptr && value->size() == uuid_bytes && value->back() == '\0';
    const auto parsed = shaped ? uuid::parse(value->substr(0, uuid_bytes - 1)) : std::nullopt;
    if (!parsed) {
        finding& f =
            report_blob(problem::bad_volume, b, fmt::format("blob {:#x}: its uuid is missing or none", b.id()));
        f.repairable = false;
        if (b.id() != _super.super_blob) f.how_bad = severity::note;  // SPDK makes one up
        return;
    }
    auto [found, fresh] = uuids.emplace(parsed->to_string(), b.id());
    if (fresh) return;
    finding& f =
        report_blob(problem::bad_volume, b,
                    fmt::format("blobs {:#x} and {:#x} have the same uuid {}", found->second, b.id(), found->first));
    f.repairable = false;
    f.blobs = {found->second, b.id()};
}

}  // namespace varve::blob::check
