// Memory for coroutine frames, and what is as short-lived: size-classed free lists of 64-byte-aligned blocks, one set
// for each OS thread. A frame may be freed on another OS thread than it was allocated on; it joins the list there.
// Address sanitizer builds go to the heap directly, so that use after free is seen.
#pragma once

#include <cstddef>

namespace varve::thread {

void* allocate_frame(std::size_t size);
void free_frame(void* frame, std::size_t size) noexcept;
// For the nodes of a container that come and go with requests.
template <class T>
struct frame_allocator {
    using value_type = T;
    frame_allocator() noexcept = default;
    template <class U>
    frame_allocator(const frame_allocator<U>&) noexcept {}
    T* allocate(std::size_t n) { return static_cast<T*>(allocate_frame(n * sizeof(T))); }
    void deallocate(T* at, std::size_t n) noexcept { free_frame(at, n * sizeof(T)); }
    bool operator==(const frame_allocator&) const noexcept = default;
};

// Gives what the lists of this OS thread keep back to the heap.
void release_frames() noexcept;

}  // namespace varve::thread
