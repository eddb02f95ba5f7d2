// The descriptors of a metadata page as they lie in it, for looking at and changing pages in place.
#pragma once

#include <cstddef>
#include <cstring>

#include "blob/format/wire.h"

namespace varve::blob::check {

template <class T>
T get(const format::page_bytes& page, std::size_t at) {
    T out;
    std::memcpy(&out, page.data() + at, sizeof out);
    return out;
}
template <class T>
void put(format::page_bytes& page, std::size_t at, const T& value) {
    std::memcpy(page.data() + at, &value, sizeof value);
}

constexpr std::size_t space_begin = offsetof(format::md_page_wire, descriptors);
constexpr std::size_t space_end = space_begin + format::descriptor_space;

// Where the next descriptor begins, and where the descriptors end: calls f(type, offset of the body, length) for each.
// A descriptor that does not fit into the page ends them, as in the decoder.
template <class F>
std::size_t for_each_descriptor(const format::page_bytes& page, F f) {
    std::size_t at = space_begin;
    while (at + sizeof(format::descriptor_header_wire) <= space_end) {
        const auto h = get<format::descriptor_header_wire>(page, at);
        const std::size_t body = at + sizeof h;
        if (h.type == 0 && h.length == 0) break;
        if (h.length > space_end - body) return space_end;  // no room behind something broken
        f(static_cast<format::descriptor_type>(h.type), body, std::size_t{h.length});
        at = body + h.length;
    }
    return at;
}

}  // namespace varve::blob::check
