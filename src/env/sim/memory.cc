#include "env/sim/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "util/assert.h"
#include "util/units.h"

namespace varve::env::sim {

namespace {
#if __has_feature(address_sanitizer)
constexpr std::size_t large = SIZE_MAX;
#else
// Mapped for themselves: they come zeroed, and cost nothing until they are touched.
constexpr std::size_t large = 256 << 10;
#endif

std::size_t mapped_size(std::size_t size, std::size_t alignment) { return round_up(size, 4096) + alignment; }
}  // namespace

simulated_memory::~simulated_memory() { VARVE_ASSERT(_allocated == 0); }

result<buffer> simulated_memory::allocate(std::size_t size, std::size_t alignment) {
    VARVE_ASSERT(is_power_of_two(alignment));
    uint64_t number = _allocations++;
    if (number == _failing || _chance.one_in(_fail_one_in) || !range_inside(_allocated, size, _limit)) {
        return fail(errc::no_memory, "the simulation says so");
    }
    alignment = std::max<std::size_t>(alignment, 64);
    void* data = nullptr;
    if (size < large) {
        if (posix_memalign(&data, alignment, std::max<std::size_t>(size, 1)) != 0) return fail(errc::no_memory);
        std::memset(data, 0, size);
    } else {
        std::size_t room = mapped_size(size, alignment);
        void* block = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED) return fail(errc::no_memory);
        data = block;
        std::size_t length = room;
        std::align(alignment, size, data, length);
        _mapped.emplace(data, std::pair(block, room));
    }
    _allocated += size;
    return buffer(*this, static_cast<std::byte*>(data), size);
}

void simulated_memory::free(std::byte* data, std::size_t size) noexcept {
    VARVE_ASSERT(_allocated >= size);
    _allocated -= size;
    if (size < large) return std::free(data);
    auto found = _mapped.find(data);
    VARVE_ASSERT(found != _mapped.end());
    munmap(found->second.first, found->second.second);
    _mapped.erase(found);
}

}  // namespace varve::env::sim
