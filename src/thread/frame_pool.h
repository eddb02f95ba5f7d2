// Memory for coroutine frames: size-classed free lists of 64-byte-aligned blocks, one set for each OS thread.
// A frame may be freed on another OS thread than it was allocated on; it joins the list there.
// Address sanitizer builds go to the heap directly, so that use after free is seen.
#pragma once

#include <cstddef>

namespace varve::thread {

void* allocate_frame(std::size_t size);
void free_frame(void* frame, std::size_t size) noexcept;
// Gives what the lists of this OS thread keep back to the heap.
void release_frames() noexcept;

}  // namespace varve::thread
