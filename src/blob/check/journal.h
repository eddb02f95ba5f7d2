// The file in which a repair keeps what it replaces, written and flushed before the first change: with it the store can
// be made what it was.
//
//   varve-fsck-journal 1\n
//   then for each change: offset, length (8 bytes each), crc32c of both contents (4), length of the reason (4), the
//   reason, the bytes before, the bytes after. All numbers little-endian.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "blob/check/repair.h"
#include "util/result.h"

namespace varve::blob::check {

std::string encode_journal(const repair_plan& plan);
result<repair_plan> decode_journal(std::string_view text);

}  // namespace varve::blob::check
