// Names and uuids of volumes and their stores as extended attributes of blobs, in SPDK's form: "uuid" is the text with
// its zero; "name" ends with a zero and takes 64 bytes at most, which is all that SPDK reads (a longer one makes it
// refuse the whole store).
//
// Names here may have 255 bytes. One of more than 63 is kept in an attribute of ours, "varve.name": the short name, a
// zero, the long name. "name" holds the short name: the first 54 bytes of the long one, '~', and eight digits of the
// uuid. When "name" is not what "varve.name" begins with, SPDK has renamed the volume, and "name" counts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bdev/device.h"
#include "blob/format/record.h"
#include "util/result.h"
#include "util/uuid.h"

namespace varve::modules::lvol {

constexpr std::size_t name_bytes_max = 255;
constexpr std::size_t spdk_name_bytes_max = blob::format::spdk_name_value_max - 1;
constexpr std::string_view long_name_xattr = "varve.name";
// When a volume was made: RFC 3339, UTC, and a zero, as Longhorn keeps it.
constexpr const char* creation_xattr = "creation_time";
// Of a snapshot: CRC-64 of its own clusters, eight bytes in the order of the host, as Longhorn keeps it.
constexpr const char* checksum_xattr = "checksum";

// errc::invalid for what no volume or store can be named.
result<> check_name(std::string_view what, std::string_view name);

// The attributes that hold a name; what a volume had before of them and is not among these is to be removed.
// `padded`: as SPDK writes the name of a new volume, with zeroes to 64 bytes.
std::vector<blob::format::xattr> name_xattrs(const std::string& name, const uuid& id, bool padded);
blob::format::xattr uuid_xattr(const uuid& id);
blob::format::xattr creation_xattr_at(int64_t wall_clock_ns);

// What a clone's metadata calls the bdev outside that it shows: the uuid's text with a zero.
std::string external_id_of(const bdev::device& d);

// Whether users may not set this attribute: what is kept here, and what SPDK would read as something else.
bool is_kept_by_us(std::string_view xattr) noexcept;

// Empty when there is none.
std::string name_in(const blob::format::xattr_map& xattrs);
// Empty when there is none.
std::string creation_time_in(const blob::format::xattr_map& xattrs);
// Nil when there is none.
uuid uuid_in(const blob::format::xattr_map& xattrs) noexcept;

}  // namespace varve::modules::lvol
