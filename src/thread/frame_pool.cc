#include "thread/frame_pool.h"

#include <array>
#include <new>

namespace varve::thread {

namespace {

// Frames above 6 KiB go to the heap. The largest are those of first writes to a volume, which come in hundreds.
constexpr std::size_t granule = 64, classes = 96;
constexpr std::size_t kept_per_class = 256;

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool pooled = false;
#else
constexpr bool pooled = true;
#endif
#else
constexpr bool pooled = true;
#endif

struct free_block {
    free_block* next;
};

struct free_list {
    free_block* first = nullptr;
    std::size_t count = 0;
};

struct pool {
    std::array<free_list, classes> lists;
    ~pool() { empty(); }
    void empty() noexcept {
        for (auto& list : lists) {
            while (list.first != nullptr) {
                free_block* block = list.first;
                list.first = block->next;
                ::operator delete(block, std::align_val_t(granule));
            }
            list.count = 0;
        }
    }
};

// One per OS thread: it belongs to the processor, not to a system, like malloc's own thread cache.
thread_local pool frames;

}  // namespace

void* allocate_frame(std::size_t size) {
    std::size_t index = (size + granule - 1) / granule;
    if (pooled && index < classes) {
        free_list& list = frames.lists[index];
        if (free_block* block = list.first) {
            list.first = block->next;
            --list.count;
            return block;
        }
    }
    return ::operator new(index * granule, std::align_val_t(granule));
}

void free_frame(void* frame, std::size_t size) noexcept {
    std::size_t index = (size + granule - 1) / granule;
    if (pooled && index < classes && frames.lists[index].count < kept_per_class) {
        free_list& list = frames.lists[index];
        auto* block = static_cast<free_block*>(frame);
        block->next = list.first;
        list.first = block;
        ++list.count;
        return;
    }
    ::operator delete(frame, std::align_val_t(granule));
}

void release_frames() noexcept { frames.empty(); }

}  // namespace varve::thread
