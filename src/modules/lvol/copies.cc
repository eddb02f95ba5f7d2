#include "modules/lvol/copies.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "accel/crc64.h"
#include "bdev/awaits.h"
#include "blob/disk.h"
#include "env/system.h"
#include "thread/awaits.h"
#include "thread/buffer_pool.h"

namespace varve::modules::lvol {

namespace {

constexpr uint64_t piece_bytes_max = 1024 * 1024;
constexpr unsigned clusters_at_once = 4;
constexpr uint64_t looked_at_once = 16384;  // clusters, before others have their turn

// A bdev that may go while it is read or written: then the job ends.
struct watched {
    bdev::descriptor opened;
    bool gone = false;
    jobs::job* used_by = nullptr;

    result<> open(bdev::registry& devices, const std::string& name, bdev::open_mode how) {
        auto d = devices.open(name, how, [this](bdev::device_event e) {
            if (e != bdev::device_event::removed) return;
            gone = true;
            if (used_by != nullptr) used_by->cancel();
        });
        if (!d) return fail(std::move(d).error());
        opened = std::move(*d);
        return {};
    }
};

}  // namespace

struct copies::operation : status {
    // While it runs.
    struct means {
        means(volume::use works, blob::blob_ref b, blob::store::operation alone)
            : source(std::move(works)), blob(std::move(b)), held(std::move(alone)) {}
        volume::use source;
        blob::blob_ref blob;
        blob::store::operation held;
        watched from, to;
    };
    std::unique_ptr<means> at_work;
    std::vector<uint64_t> listed;

    // The clusters that may be concerned, in order.
    uint64_t steps() const { return what == extent::listed ? listed.size() : at_work->blob.clusters(); }
    uint64_t index(uint64_t step) const { return what == extent::listed ? listed[step] : step; }
    // Of these, something is done about.
    bool wants(uint64_t index) const {
        const blob::blob_ref& b = at_work->blob;
        switch (what) {
            case extent::own:
                return b.cluster_at(index) != blob::no_cluster;
            case extent::visible:
                return !blob::find_source(b.state().current.get(), index).is_zeroes();
            case extent::listed:
                break;
        }
        return true;
    }
    // From `step` on, to the next about which something is done. False: not found yet, others may have their turn; or
    // there is none, and it is steps().
    bool advance(uint64_t& step) const {
        if (what == extent::listed) return step < steps();
        if (what == extent::own) return (step = at_work->blob.state().current->next(step)) < steps();
        const uint64_t end = std::min(steps(), step + looked_at_once);
        while (step < end && !wants(step)) ++step;
        return step < end;
    }
};

copies::copies(volumes& all) : _all(all) {}
copies::~copies() = default;
void copies::forget(uint32_t id) { _copies.erase(id); }

const copies::status* copies::find(uint32_t id) const noexcept {
    auto found = _copies.find(id);
    return found == _copies.end() ? nullptr : found->second.get();
}

void copies::drop_old() {
    auto over = [](const auto& c) { return c.second->outcome.has_value(); };
    while (std::ranges::count_if(_copies, over) > static_cast<std::ptrdiff_t>(kept)) {
        _copies.erase(std::ranges::find_if(_copies, over));
    }
}

// --- copying

result<uint32_t> copies::start(volume& from, const std::string& to, extent what, std::vector<uint64_t> listed) {
    auto works = from.begin_use();
    if (!works) return fail(std::move(works).error());
    auto b = from.open();
    if (!b) return fail(std::move(b).error());
    if (!b->read_only()) return fail(errc::not_permitted, fmt::format("{} is not read-only", from.alias()));
    auto alone = from.owner().blobs().hold(*b);
    if (!alone) return fail(std::move(alone).error());
    auto o = std::make_unique<operation>();
    o->at_work = std::make_unique<operation::means>(std::move(*works), std::move(*b), std::move(*alone));
    operation::means& m = *o->at_work;
    VARVE_TRY(m.from.open(_all.devices(), from.bdev_name(), bdev::open_mode::read_only));
    // Others may read there meanwhile, but who writes what is half a copy does not know what he does.
    VARVE_TRY(m.to.open(_all.devices(), to, bdev::open_mode::read_write));
    VARVE_TRY(m.to.opened.claim(bdev::claim_type::read_many_write_one, module_name));
    const bdev::device &source = *m.from.opened, &target = *m.to.opened;
    // The source itself is one such: better told now than by a job that cannot but fail.
    if (target.props().read_only) return fail(errc::not_permitted, fmt::format("bdev {} is read-only", to));
    if (source.block_size() % target.block_size() != 0) {
        return fail(errc::invalid, fmt::format("blocks of {} bytes do not fit into {} with {}", source.block_size(), to,
                                               target.block_size()));
    }
    if (target.num_blocks() * target.block_size() < source.num_blocks() * source.block_size()) {
        return fail(errc::invalid, fmt::format("bdev {} is smaller than {}", to, from.alias()));
    }
    for (uint64_t index : listed) {
        if (index >= m.blob.clusters()) {
            return fail(errc::invalid, fmt::format("{} has no cluster {}", from.alias(), index));
        }
    }
    o->what = what;
    o->listed = std::move(listed);
    std::ranges::sort(o->listed);
    o->listed.erase(std::ranges::unique(o->listed).begin(), o->listed.end());
    // That of all that shows is counted by the job.
    if (what != extent::visible) o->total = what == extent::own ? m.blob.clusters_allocated() : o->steps();
    drop_old();
    const uint32_t id = ++_last;
    operation& kept_here = *_copies.emplace(id, std::move(o)).first->second;
    auto at_end = [&kept_here](const result<>& outcome) {
        const bool gone = kept_here.at_work->from.gone || kept_here.at_work->to.gone;
        kept_here.at_work.reset();
        kept_here.outcome = gone && !outcome ? fail(errc::no_device, "the bdev was removed") : outcome;
    };
    auto begun = _all.jobs().start(
        {.kind = what == extent::visible ? "deep copy" : "shallow copy",
         .object = fmt::format("{} to {}", from.alias(), to),
         .unit = "clusters",
         .owner = &from.owner()},
        [this, &kept_here](jobs::job& j) { return copy(kept_here, j); }, at_end);
    if (!begun) {
        _copies.erase(id);
        return fail(std::move(begun).error());
    }
    return id;
}

task<> copies::copy(operation& o, jobs::job& progress) {
    operation::means& m = *o.at_work;
    m.from.used_by = m.to.used_by = &progress;
    if (o.what == extent::visible) co_await count(o, progress);
    progress.expect(o.total);
    const uint64_t size = m.source->owner().blobs().geometry().cluster_size;
    semaphore slots(clusters_at_once);
    blob::crew all;
    result<> outcome;
    for (uint64_t i = 0; i < o.steps() && outcome && !all.failed(); ++i) {
        while (!o.advance(i) && i < o.steps() && !progress.cancelled()) co_await yield();
        if (i >= o.steps()) break;
        const uint64_t index = o.index(i);
        auto slot = co_await slots.acquire();
        outcome = co_await as_result(progress.turn(size));  // the last thing: it may be paused
        auto one = [](copies& all_copies, operation& of, uint64_t at, jobs::job& told, semaphore::units) -> task<> {
            co_await all_copies.copy_cluster(of, at, told);
        };
        if (outcome) all.start(one(*this, o, index, progress, std::move(slot)));
    }
    result<> done = co_await as_result(all.done());
    co_await std::move(outcome);
    co_await std::move(done);
    if (m.to.opened->supports(bdev::op::flush)) {
        auto c = m.to.opened.channel();
        co_await bdev::flush(*c);
    }
}

task<> copies::count(operation& o, jobs::job& progress) {
    for (uint64_t i = 0; i < o.steps();) {
        if (o.advance(i)) {
            ++i;
            if (++o.total % looked_at_once != 0) continue;
        }
        if (i < o.steps()) co_await yield();
        co_await progress.turn();
    }
}

// What is not there reads as zeroes, there as here. Unmapped all the same, since clients compare what volumes have got;
// written only where something else shows.
task<> copies::unmap_cluster(operation& o, uint64_t index) {
    operation::means& m = *o.at_work;
    const bdev::device& target = *m.to.opened;
    const uint64_t size = m.source->owner().blobs().geometry().cluster_size, block = target.block_size();
    const uint64_t lba = index * size / block;
    const auto blocks = static_cast<uint32_t>(size / block);
    auto to = m.to.opened.channel();
    const bool unmaps = target.offers(bdev::op::unmap);
    if (unmaps) co_await bdev::unmap(*to, lba, blocks);
    if (unmaps && target.props().unmap_zeroes) co_return;
    const thread::scratch memory = co_await thread::scratch::get(std::min(size, piece_bytes_max));
    for (uint64_t done = 0; done < size; done += memory.bytes().size()) {
        auto piece = memory.bytes().first(std::min<uint64_t>(memory.bytes().size(), size - done));
        co_await bdev::read(*to, lba + done / block, piece);
        if (piece[0] == std::byte{} && std::memcmp(piece.data(), piece.data() + 1, piece.size() - 1) == 0) continue;
        co_return co_await bdev::write_zeroes(*to, lba, blocks);
    }
}

task<> copies::copy_cluster(operation& o, uint64_t index, jobs::job& progress) {
    operation::means& m = *o.at_work;
    const uint64_t size = m.source->owner().blobs().geometry().cluster_size, start = index * size;
    auto to = m.to.opened.channel();
    const uint32_t to_block = m.to.opened->block_size(), from_block = m.from.opened->block_size();
    if (o.what == extent::listed && m.blob.cluster_at(index) == blob::no_cluster) {
        co_await unmap_cluster(o, index);
        ++o.unmapped;
        co_return progress.did();
    }
    auto from = m.from.opened.channel();
    const thread::scratch memory = co_await thread::scratch::get(std::min(size, piece_bytes_max));
    for (uint64_t done = 0; done < size; done += memory.bytes().size()) {
        auto piece = memory.bytes().first(std::min<uint64_t>(memory.bytes().size(), size - done));
        co_await bdev::read(*from, (start + done) / from_block, piece);
        co_await bdev::write(*to, (start + done) / to_block, piece);
    }
    ++o.copied;
    progress.did();
}

// --- checksums

task<> copies::compute_checksum(volume& of, bool each) {
    volume::use works = co_await of.begin_use();
    blob::blob_ref b = co_await of.open();
    if (!of.is_snapshot()) co_await fail(errc::not_permitted, fmt::format("{} is not a snapshot", of.alias()));
    auto alone = co_await of.owner().blobs().hold(b);
    std::erase_if(_sums, [this](const auto& known) { return !_all.find(known.first.to_string()); });
    co_await _all.jobs().run(
        {.kind = "checksum", .object = of.alias(), .unit = "clusters", .owner = &of.owner(), .about = &of},
        [&](jobs::job& j) { return sum(of, b, each, j); });
}

task<> copies::sum(volume& of, blob::blob_ref& b, bool each, jobs::job& progress) {
    watched from;
    from.used_by = &progress;
    co_await from.open(_all.devices(), of.bdev_name(), bdev::open_mode::read_only);
    blob::store& blobs = of.owner().blobs();
    const uint64_t size = blobs.geometry().cluster_size;
    const uint32_t block = from.opened->block_size();
    env::buffer memory = co_await _all.devices().world().mem().allocate(std::min(size, piece_bytes_max), 4096);
    auto channel = from.opened.channel();
    sums made;
    progress.expect(b.clusters_allocated());
    const auto next = [&](uint64_t from) { return b.state().current->next(from); };
    for (uint64_t i = next(0); i < b.clusters(); i = next(i + 1)) {
        co_await progress.turn(size);
        uint64_t one = 0;
        for (uint64_t done = 0; done < size; done += memory.size()) {
            auto piece = memory.bytes().first(std::min<uint64_t>(memory.size(), size - done));
            co_await bdev::read(*channel, (i * size + done) / block, piece);
            made.whole = accel::crc64_iso(piece, made.whole);
            if (each) one = accel::crc64_iso(piece, one);
        }
        if (each) made.each.push_back({i, one});
        progress.did();
    }
    std::string value(sizeof made.whole, '\0');
    std::memcpy(value.data(), &made.whole, sizeof made.whole);
    co_await blobs.change_xattrs(b, {{checksum_xattr, value}});
    if (each) _sums[of.uuid()] = std::move(made);
}

result<> copies::stop_checksum(volume& of) {
    bool found = false;
    for (const auto& [id, e] : _all.jobs().all()) {
        if (e->running() && e->what.about == &of) {
            e->progress.cancel();
            found = true;
        }
    }
    // ESRCH: clients wait for it.
    if (!found) return fail(from_errno(ESRCH), fmt::format("no checksum of {} is being computed", of.alias()));
    return {};
}

std::optional<uint64_t> copies::checksum(const volume& of) const {
    const std::string* value = of.state()->record.xattrs.find(checksum_xattr);
    if (value == nullptr || value->size() != sizeof(uint64_t)) return std::nullopt;
    uint64_t sum = 0;
    std::memcpy(&sum, value->data(), sizeof sum);
    return sum;
}

std::optional<std::vector<copies::cluster_sum>> copies::checksums(const volume& of, uint64_t first,
                                                                  uint64_t count) const {
    auto found = _sums.find(of.uuid());
    if (found == _sums.end() || checksum(of) != found->second.whole) {
        return std::nullopt;
    }
    std::vector<cluster_sum> out;
    const std::vector<cluster_sum>& own = found->second.each;
    const uint64_t end = std::min(of.state()->record.cluster_count, count < ~first ? first + count : ~uint64_t{0});
    auto next = std::ranges::lower_bound(own, first, {}, &cluster_sum::index);
    for (uint64_t i = first; i < end; ++i) {
        const bool has_it = next != own.end() && next->index == i;
        out.push_back({i, has_it ? (next++)->sum : 0});
    }
    return out;
}

}  // namespace varve::modules::lvol
