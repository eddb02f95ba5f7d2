#include "env/linux/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "util/assert.h"
#include "util/units.h"

namespace varve::env::os_linux {
namespace {

constexpr std::size_t page = 4096, hugepage = 2 << 20;
// From here on a mapping of its own: its pages come zeroed, one by one as they are touched, and go back when freed.
constexpr std::size_t mapped_from = 64 << 10;

// Hugepages are for allocations that fill them: at most a quarter may be lost to rounding.
bool fills_hugepages(std::size_t size) noexcept { return round_up(size, hugepage) - size <= size / 4; }

std::size_t mapping_size(std::size_t size) noexcept { return round_up(size, fills_hugepages(size) ? hugepage : page); }

// Maps with any alignment by mapping more and returning both ends.
std::byte* map_pages(std::size_t length, std::size_t alignment) noexcept {
    std::size_t slack = alignment > page ? alignment - page : 0;
    if (length + slack < length) return nullptr;
    void* at = ::mmap(nullptr, length + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    auto* first = static_cast<std::byte*>(at);
    std::size_t before = round_up(reinterpret_cast<uintptr_t>(first), alignment) - reinterpret_cast<uintptr_t>(first);
    if (before > 0) ::munmap(first, before);
    if (slack > before) ::munmap(first + before + length, slack - before);
    return first + before;
}

}  // namespace

result<buffer> system_memory::allocate(std::size_t size, std::size_t alignment) {
    VARVE_ASSERT(is_power_of_two(alignment));
    if (size == 0) return buffer();
    alignment = std::max<std::size_t>(alignment, 64);
    std::byte* data = nullptr;
    if (size > SIZE_MAX - 2 * hugepage) {
        // No such memory; and the roundings below would overflow.
    } else if (size < mapped_from) {
        data = static_cast<std::byte*>(std::aligned_alloc(alignment, round_up(size, alignment)));
        if (data != nullptr) std::memset(data, 0, size);
    } else {
        std::size_t length = mapping_size(size);
        if (_hugepages && fills_hugepages(size) && alignment <= hugepage) {
            void* at =
                ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
            if (at != MAP_FAILED) data = static_cast<std::byte*>(at);
        }
        if (data == nullptr) data = map_pages(length, std::max(alignment, page));
    }
    if (data == nullptr) return fail(errc::no_memory, std::to_string(size) + " bytes");
    _allocated.fetch_add(size, std::memory_order_relaxed);
    return buffer(*this, data, size);
}

void system_memory::free(std::byte* data, std::size_t size) noexcept {
    _allocated.fetch_sub(size, std::memory_order_relaxed);
    if (size < mapped_from) {
        std::free(data);
    } else {
        ::munmap(data, mapping_size(size));
    }
}

void system_memory::populate(std::span<std::byte> range) noexcept {
    const uintptr_t from = round_up(reinterpret_cast<uintptr_t>(range.data()), page);
    const uintptr_t to = (reinterpret_cast<uintptr_t>(range.data()) + range.size()) / page * page;
    if (from < to)
        ::madvise(range.data() + (from - reinterpret_cast<uintptr_t>(range.data())), to - from, MADV_POPULATE_WRITE);
}

}  // namespace varve::env::os_linux
