// Stores of volumes: made, found on bdevs that appear, closed, destroyed.
#include <fmt/format.h>

#include <algorithm>
#include <ranges>

#include "bdev/layer.h"
#include "blob/format/super.h"
#include "env/system.h"
#include "modules/lvol/volumes.h"

namespace varve::modules::lvol {

namespace {

constexpr const char* store_type = "LVOLSTORE";

// Of unmapping what a store had that is deleted.
constexpr time_ns unmap_time_max = 3 * seconds;
constexpr time_ns unmap_answer_max = 10 * seconds;

// What the first page of a device says.
enum class first_page : uint8_t { nothing, others, ours };

task<first_page> look_at(bdev::registry& devices, bdev::descriptor d) {
    const uint32_t block = d->block_size();
    blob::format::device_shape shape{{d->num_blocks() * block}, block};
    if (shape.size.value < blob::format::page_size) co_return first_page::nothing;
    blob::disk on(devices, std::move(d));
    env::buffer memory = co_await on.memory(round_up(blob::format::page_size, block));
    co_await on.read(0, memory.bytes());
    auto page = memory.bytes().first<blob::format::page_size>();
    if (!blob::format::looks_like_super(page)) co_return first_page::nothing;
    auto super = blob::format::decode_super(page, shape);
    // One that is damaged may be ours: load() says what is wrong.
    co_return !super || super->type_text() == store_type ? first_page::ours : first_page::others;
}

}  // namespace

void volumes::attach(bdev::registry& devices) {
    _devices = &devices;
    devices.add_examiner(module_name, [this](bdev::device& d) { return examine(d); });
}

// --- finding

std::vector<volume_store*> volumes::stores() const {
    std::vector<volume_store*> all;
    for (const auto& s : _stores) {
        if (!s->_closing) all.push_back(s.get());
    }
    return all;
}

volume_store* volumes::find_store(std::string_view name) const noexcept {
    for (const auto& s : _stores) {
        if (s->_name == name && !s->_closing) return s.get();
    }
    return nullptr;
}

volume_store* volumes::find_store(const uuid& id) const noexcept {
    for (const auto& s : _stores) {
        if (s->_uuid == id && !s->_closing) return s.get();
    }
    return nullptr;
}

result<volume_store*> volumes::store(const std::optional<std::string>& uuid_text,
                                     const std::optional<std::string>& name) const {
    if (uuid_text.has_value() == name.has_value()) {
        return fail(errc::invalid, "give either the uuid or the name of the lvstore");
    }
    volume_store* found = nullptr;
    if (name) {
        found = find_store(*name);
    } else if (auto id = uuid::parse(*uuid_text)) {
        found = find_store(*id);
    }
    if (found != nullptr) return found;
    return fail(errc::no_device, fmt::format("there is no lvstore {}", name ? *name : *uuid_text));
}

result<volume*> volumes::find_served(std::string_view name) const {
    volume* v = volume::of(_devices->find(name));
    if (v != nullptr) return v;
    return fail(errc::no_device, fmt::format("there is no lvol bdev {}", name));
}

result<volume*> volumes::find(std::string_view name) const {
    if (volume* v = volume::of(_devices->find(name))) return v;
    auto id = uuid::parse(name);
    std::string wanted = id ? id->to_string() : std::string(name);
    for (const auto& s : _stores) {
        if (s->_closing) continue;
        for (const auto& [blob, v] : s->_volumes) {
            if (v->_bdev_name == wanted || v->alias() == wanted) return v.get();
        }
    }
    return fail(errc::no_device, fmt::format("there is no lvol {}", name));
}

// --- opening

struct volumes::base {
    std::unique_ptr<volume_store::base_events> events;
    bdev::descriptor opened;
};

// Claimed: nobody else writes there, or it cannot be had.
result<volumes::base> volumes::open_base(std::string_view name) {
    base b{std::make_unique<volume_store::base_events>(), {}};
    auto handle = [this, e = b.events.get()](bdev::device_event what) {
        if (what != bdev::device_event::removed) return;
        e->gone = true;
        if (e->above != nullptr) base_removed(*e->above);
    };
    auto opened = _devices->open(name, bdev::open_mode::read_write, handle);
    if (!opened) return fail(std::move(opened).error());
    VARVE_TRY(opened->claim(bdev::claim_type::read_many_write_one, module_name));
    b.opened = std::move(*opened);
    return b;
}

// What lies on a volume its user wrote, whatever name it has.
std::string volumes::place(std::string_view base) const {
    const volume* v = volume::of(_devices->find(base));
    if (v == nullptr) return fmt::format("bdev {}", base);
    return fmt::format("bdev {}, which is lvol {} and its user's to write", base, v->alias());
}

result<> volumes::check_free(const uuid& id, std::string_view name, std::string_view base) const {
    for (const auto& s : _stores) {
        if (s->_name != name && s->_uuid != id) continue;
        return fail(errc::exists, fmt::format("lvstore {} ({}) on {} has the {} of lvstore {} ({}) on {}", name,
                                              id.to_string(), place(base), s->_uuid == id ? "uuid" : "name", s->_name,
                                              s->_uuid.to_string(), place(s->_base_name)));
    }
    if (_coming.contains(name)) return fail(errc::exists, fmt::format("lvstore {} is being made or opened", name));
    if (_coming.contains(id.to_string())) {
        return fail(errc::exists, fmt::format("lvstore {} ({}) is being opened", name, id.to_string()));
    }
    return {};
}

task<uuid> volumes::import(std::string bdev_name, std::optional<std::string> name) {
    gate::holder stays = _openings.enter();
    if (!stays) co_await fail(errc::cancelled, "the system is ending");
    base b = co_await open_base(bdev_name);
    auto* events = b.events.get();
    auto blobs = co_await blob::store::load(*_devices, std::move(b.opened),
                                            {.type = store_type, .trim = false, .externals = this, .log = &_log});
    std::unique_ptr<volume_store> made(new volume_store(*this, std::move(b.events), std::move(blobs)));
    std::vector<reserved_name> mine;
    result<> outcome = events->gone ? fail(errc::no_device, fmt::format("bdev {} has been removed", bdev_name))
                                    : co_await as_result(name_and_check(*made, name, mine));
    if (!outcome) {
        co_await made->_blobs->abandon();
        co_await std::move(outcome);
    }
    volume_store& s = keep(std::move(made));
    gate::holder open = co_await s.begin();
    if (events->gone) base_removed(s);  // while its name was written: it was opened, and ends when this has
    for (blob::blob_id id : s._blobs->blobs()) {
        if (id != s._blobs->super_blob()) s.adopt(id);
    }
    for (volume* v : s.list()) {
        if (events->gone) break;
        co_await as_result(s.publish(*v));
    }
    s._blobs->start_trimming();
    _log.notice(fmt::format("lvstore {} ({}) on {}: {} lvols", s._name, s._uuid.to_string(), place(bdev_name),
                            s._volumes.size()));
    if (std::string why = s.trouble(); !why.empty()) _log.warning(fmt::format("lvstore {}: {}", s._name, why));
    co_return s._uuid;
}

// Name and uuid stand in the store's own blob. Its volumes are served also when that cannot be read: under a name and a
// uuid that are the same each time, until it is renamed, which makes it a new blob.
result<> volumes::identify(volume_store& s) {
    const blob::blob_state* own = s._blobs->find(s._blobs->super_blob());
    if (own != nullptr) {
        s._uuid = uuid_in(own->record.xattrs);
        s._name = name_in(own->record.xattrs);
    }
    const bool known = !s._uuid.is_nil() && !s._name.empty();
    if (own != nullptr && known && !own->set_aside()) return {};
    std::string why = own == nullptr     ? "its blob with name and uuid is not there"
                      : own->set_aside() ? "its blob with name and uuid: " + own->damage
                                         : "its blob has no name or no uuid";
    // The power went before it was named: what there is may be the blob that was to have the name.
    auto is_empty = [&](blob::blob_id id) {
        const blob::blob_state& b = *s._blobs->find(id);
        return !b.set_aside() && b.record.cluster_count == 0;
    };
    if (own == nullptr && std::ranges::all_of(s._blobs->blobs(), is_empty)) {
        return fail(errc::bad_sequence, fmt::format("the lvstore on bdev {} was not finished: {}", s._base_name, why));
    }
    const bdev::device& base = s._blobs->base().device();
    const auto& extension = s._blobs->super().extension;
    if (s._uuid.is_nil()) s._uuid = bdev::layered_uuid(extension ? extension->store : base.props().uuid, "lvstore");
    if (s._name.empty()) s._name = "lvs_" + s._base_name;
    s._trouble = std::move(why);
    return {};
}

// The last that can fail is the writing of a new name. Nobody else gets that or the uuid meanwhile: they are
// `reserved`.
task<> volumes::name_and_check(volume_store& s, const std::optional<std::string>& name,
                               std::vector<reserved_name>& reserved) {
    co_await identify(s);
    if (name) co_await check_name("lvs_name", *name);
    co_await check_free(s._uuid, name.value_or(s._name), s._base_name);
    if (!name || *name == s._name) co_return;
    reserved.emplace_back(_coming, *name);
    reserved.emplace_back(_coming, s._uuid.to_string());
    co_await s.rename_self(*name);
}

volume_store& volumes::keep(std::unique_ptr<volume_store> s) {
    s->_blobs->tie_to_clusters(checksum_xattr);
    s->_events->above = s.get();
    _stores.push_back(std::move(s));
    return *_stores.back();
}

task<> volumes::examine(bdev::device& d) {
    if (_stopped) co_return;
    std::string name = d.name(), id = external_id_of(d);
    const bool has_metadata = d.props().metadata_size != 0;
    std::vector<uuid> known;
    for (const volume_store* s : stores()) known.push_back(s->_uuid);
    for (const uuid& each : known) {
        if (volume_store* s = find_store(each)) co_await as_result(s->attach_external(id));
    }
    if (has_metadata) co_return;
    auto opened = _devices->open(name, bdev::open_mode::read_only, {});
    if (!opened) co_return;
    auto seen = co_await as_result(look_at(*_devices, std::move(*opened)));
    if (!seen || *seen != first_page::ours) co_return;
    auto outcome = co_await as_result(import(name));
    if (!outcome) {
        _log.error(fmt::format("lvstore on bdev {} is not opened: {}", name, outcome.error().message()));
    }
}

// --- making

task<uuid> volumes::create_store(store_creation how) {
    gate::holder stays = _openings.enter();
    if (!stays) co_await fail(errc::cancelled, "the system is ending");
    co_await check_name("lvs_name", how.name);
    const uuid id = _devices->world().make_uuid();
    co_await check_free(id, how.name, how.bdev_name);
    reserved_name reserved(_coming, how.name);
    base b = co_await open_base(how.bdev_name);
    auto* events = b.events.get();
    how.options.type = store_type;
    how.options.trim = false;
    how.options.externals = this;
    how.options.log = &_log;
    auto blobs = co_await blob::store::init(*_devices, std::move(b.opened), how.options);
    std::unique_ptr<volume_store> made(new volume_store(*this, std::move(b.events), std::move(blobs)));
    made->_uuid = id;
    made->_name = how.name;
    result<> outcome = co_await as_result(prepare(*made, how.clear));
    if (outcome && events->gone)
        outcome = fail(errc::no_device, fmt::format("bdev {} has been removed", how.bdev_name));
    if (!outcome) {
        co_await made->_blobs->abandon();
        co_await as_result(made->_blobs->wipe());
        co_await std::move(outcome);
    }
    keep(std::move(made));
    co_return id;
}

// A device that does not leaves what it has.
task<> volumes::try_to_unmap(blob::store& b, jobs::job& progress) {
    result<> outcome = co_await as_result(b.unmap_all(progress));
    if (!outcome && outcome.error().code() == errc::cancelled) co_await std::move(outcome);
}

task<> volumes::prepare(volume_store& s, store_creation::clearing how) {
    blob::store& b = *s._blobs;
    using clearing = store_creation::clearing;
    const uint64_t flushes_failed = b.base().flushes_failed();
    const bool unmaps =
        how == clearing::unmap && !b.base().unmap_zeroes() && b.base().device().supports(bdev::op::unmap);
    if (unmaps || how == clearing::write_zeroes) {
        jobs::description what{.kind = "create", .object = s._name, .unit = "clusters", .everyday = true};
        co_await _jobs.run(std::move(what), [&](jobs::job& j) { return unmaps ? try_to_unmap(b, j) : b.zero_all(j); });
    }
    if (how == clearing::write_zeroes) co_await as_result(b.all_that_is_free_is_zeroes(flushes_failed));
    co_await s.make_self(s._name);
    if (how == clearing::unmap) b.clear_all_that_is_free();
}

task<> volumes::rename_store(volume_store& s, std::string name) {
    gate::holder stays = co_await s.begin();
    if (name == s._name) co_return;
    co_await check_name("new_name", name);
    if (find_store(name) != nullptr || _coming.contains(name)) {
        co_await fail(errc::exists, fmt::format("there is an lvstore {}", name));
    }
    reserved_name reserved(_coming, name);
    co_await s.swap_aliases(name);
}

// --- closing

void volumes::base_removed(volume_store& s) {
    s._last_requests = _devices->keep_serving(s._blobs->base().device());
    if (s._closing) return;
    _log.notice(fmt::format("bdev {} is being removed: closing lvstore {}", s._base_name, s._name));
    _devices->background(close(s, ending::unload));  // fails where the device has gone by itself
}

task<> volumes::destroy_store(volume_store& s) {
    if (s._closing) co_await fail(errc::no_device, fmt::format("lvstore {} is being closed", s._name));
    co_await close(s, ending::destroy);
}

// Everybody is sent away before the store ends; then the base is free.
task<> volumes::close(volume_store& s, ending how) {
    s._closing = true;
    co_await _jobs.end_all_of(&s);
    co_await s._users.close();
    co_await _jobs.end_all_of(&s);  // those that a user began at the end of his work
    for (volume* v : s.list() | std::views::reverse) co_await as_result(s.withdraw(*v));
    result<> outcome = co_await as_result(end(s, how));
    if (!outcome) {
        _log.error(fmt::format("lvstore {} on bdev {}: {}", s._name, s._base_name, outcome.error().message()));
        co_await s._blobs->abandon();
    }
    auto at = std::ranges::find(_stores, &s, &std::unique_ptr<volume_store>::get);
    std::unique_ptr<volume_store> mine = std::move(*at);
    _stores.erase(at);
    if (outcome && how == ending::destroy) {
        _one_closed.pulse();
        co_return co_await give_back(std::move(mine));
    }
    mine.reset();
    _one_closed.pulse();
    co_await std::move(outcome);
}

task<> volumes::end(volume_store& s, ending how) {
    blob::store& b = *s._blobs;
    if (how == ending::unload) co_return co_await b.unload();
    co_await b.abandon();
    if (how == ending::abandon) co_return;
    co_await b.wipe();  // COMMIT POINT
}

// A courtesy to the device, and no more: the base stays claimed meanwhile, so that nobody's new data is hit, and
// whoever asked waits for it. Hence it is cut short. He does not wait for what the device does not answer; the base
// stays claimed until it does.
task<> volumes::give_back(std::unique_ptr<volume_store> deleted) {
    if (!deleted->_blobs->base().device().offers(bdev::op::unmap)) co_return;
    const std::string name = deleted->_name, base = deleted->_base_name;
    auto begun =
        _jobs.start({.kind = "delete", .object = name, .unit = "clusters", .everyday = true},
                    [this, mine = std::move(deleted)](jobs::job& j) mutable { return unmap_all(std::move(mine), j); });
    if (!begun || co_await _jobs.wait(*begun, unmap_time_max + unmap_answer_max)) co_return;
    _log.warning(fmt::format(
        "bdev {} has not answered all unmaps of what lvstore {} had; it stays claimed until it does", base, name));
}

task<> volumes::unmap_all(std::unique_ptr<volume_store> deleted, jobs::job& progress) {
    struct deadline : work {
        jobs::job* of = nullptr;
    } end_it;
    end_it.of = &progress;
    end_it.run = [](work& w) noexcept { static_cast<deadline&>(w).of->cancel(); };
    thread::timer clock(end_it);
    clock.start(unmap_time_max);  // also of one that is paused, or held back by a limit
    co_await as_result(deleted->_blobs->unmap_all(progress));
}

// What another store that is there lies on, or shows.
bool volumes::is_below_another(const volume_store& s) const {
    for (const auto& other : _stores) {
        if (other.get() == &s) continue;
        for (const bdev::device* lower : other->_blobs->lower_devices()) {
            for (const auto& [id, v] : s._volumes) {
                if (v->_device != nullptr && bdev::lies_on(*lower, *v->_device)) return true;
            }
        }
    }
    return false;
}

// A store whose base does not answer keeps only those waiting that are below it.
task<> volumes::stop() {
    _stopped = true;
    co_await close_stores();  // one that is being opened may never be: its base does not answer
    co_await _openings.close();
    co_await close_stores();
}

task<> volumes::close_stores() {
    while (!_stores.empty()) {
        const std::size_t before = _stores.size();
        std::vector<volume_store*> open = stores();
        std::vector<volume_store*> now = open;
        std::erase_if(now, [this](const volume_store* s) { return is_below_another(*s); });
        if (now.empty() && open.size() == before) now.push_back(open.back());  // they show each other's volumes
        for (volume_store* s : now) _devices->background(close(*s, ending::unload));
        if (_stores.size() == before) co_await _one_closed.wait();
    }
}

}  // namespace varve::modules::lvol
