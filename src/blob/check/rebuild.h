// A super block of which too little is left: what it was, from what a search found (docs/ondisk-blobstore.md section
// 7.6). The result is never a guess between two: then it is an error, in words.
#pragma once

#include <string>

#include "blob/check/search.h"

namespace varve::blob::check {

struct rebuilt_super {
    format::super_block super;  // not clean
    std::string how;            // "the copy in page 12", "masks and metadata"
};

// `damaged`: what is at its place; its fields are hints. `cluster_size`: as the operator says, or 0. not_found: what is
// missing, or what cannot be decided.
result<rebuilt_super> rebuild_super(const search_result& found, format::page_view damaged,
                                    const format::device_shape& device, uint32_t cluster_size = 0);

}  // namespace varve::blob::check
