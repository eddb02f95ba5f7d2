// Clearing free clusters before anybody asks for them, one large range at a time.
#include "blob/store.h"

namespace varve::blob {

namespace {
constexpr uint64_t range_bytes = 256 << 20;
}

void store::start_trimming() {
    if (_trimming || _stopping || !_disk.unmap_zeroes()) return;
    _trimming = true;
    background(trim());
}

task<> store::trim() {
    const uint64_t size = _super.layout.cluster_size;
    const auto at_most = static_cast<uint32_t>(std::max<uint64_t>(1, range_bytes / size));
    while (!_stopping) {
        cluster_range r = _space.take_unclean(at_most);
        if (r.count == 0) break;
        result<> outcome = co_await as_result(_disk.unmap(r.first * size, r.count * size));
        _space.give_back(r, static_cast<bool>(outcome));
        _more_room.set();
        _more_room.reset();
        if (!outcome) break;  // whoever needs a cluster clears it himself, and hears of it
    }
    _trimming = false;
}

}  // namespace varve::blob
