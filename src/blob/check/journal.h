// The file in which a repair keeps what it replaces, written and flushed before the first change: with it the store can
// be made what it was.
//
//   varve-fsck-journal 1\n
//   then for each change: offset, length (8 bytes each), crc32c of both contents (4), length of the reason (4; its
//   highest bit: what was there could not be read), the reason, the bytes before, the bytes after. All numbers
//   little-endian. A change with the same bytes before and after was not written: an undo must find it so.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "blob/check/inspect.h"
#include "blob/check/repair.h"
#include "util/result.h"

namespace varve::blob::check {

std::string encode_journal(const repair_plan& plan);
result<repair_plan> decode_journal(std::string_view text);

// What brings back what was there before, but for what could not be read, also when the repair or an earlier undo ended
// half way, perhaps in the middle of a page. busy: what is there now is neither what was there before nor what the
// repair wrote, in some sector; io.
result<repair_plan> plan_undo(const repair_plan& journal, storage& device);

}  // namespace varve::blob::check
