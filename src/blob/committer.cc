#include "blob/committer.h"

#include <algorithm>
#include <cstring>

#include "thread/awaits.h"

namespace varve::blob {

namespace {
constexpr std::size_t images_without_area = 64;
}

committer::committer(disk& on, const format::geometry& layout, const uuid& store, format::double_write_area area,
                     uint64_t sequence)
    : _disk(on),
      _layout(layout),
      _store(store),
      _area(area),
      _images_max(area.exists() ? std::min<std::size_t>(area.per_slot - 1u, format::double_write_images_max)
                                : images_without_area),
      _sequence(sequence) {}

committer::~committer() { VARVE_ASSERT(!_running && _queue.empty()); }

task<> committer::write_page(uint32_t page, const std::byte* bytes) {
    return _disk.write(_layout.offset_of_md_page(page), {bytes, _layout.md_page_size});
}

task<> committer::write_fresh(std::vector<page_write> pages) {
    if (pages.empty()) co_return;
    // A root page that the last round cleared may be somebody's new page already: the clearing comes first.
    auto last_round_has = [this](const page_write& p) { return std::ranges::find(_targets, p.page) != _targets.end(); };
    // And a page that a failed round names is nobody's before that round is struck out.
    notice_failed_flush();
    if (_must_strike || (_must_write && std::ranges::any_of(pages, last_round_has))) co_await heal();
    const std::size_t stride = _layout.md_page_size;
    env::buffer memory = co_await _disk.memory(pages.size() * stride);
    crew all;
    for (std::size_t i = 0; i < pages.size(); ++i) {
        std::memcpy(memory.data() + i * stride, pages[i].bytes.data(), pages[i].bytes.size());
        all.start(write_page(pages[i].page, memory.data() + i * stride));
    }
    co_await all.done();
}

task<> committer::commit(std::vector<page_write> pages, std::optional<uint64_t> since) {
    VARVE_ASSERT(!pages.empty() && pages.size() <= _images_max);
    waiting mine{.pages = std::move(pages), .since = since};
    _queue.push_back(&mine);
    if (!_running) {
        _running = true;
        _tasks.spawn(run(), [](const error&) {});
    }
    co_await mine.over.wait();
    if (mine.failed) co_await fail(std::move(*mine.failed));
}

std::vector<committer::waiting*> committer::next_round() {
    std::vector<waiting*> round;
    std::size_t images = 0;
    while (!_queue.empty() && images + _queue.front()->pages.size() <= _images_max) {
        images += _queue.front()->pages.size();
        round.push_back(_queue.front());
        _queue.erase(_queue.begin());
    }
    return round;
}

task<> committer::run() {
    co_await yield();  // whoever is ready to commit, too, joins the round
    while (!_queue.empty()) {
        std::vector<waiting*> round = next_round();
        result<> outcome = co_await as_result(last_round_durable());
        if (outcome) {
            std::erase_if(round, [&](waiting* w) {
                if (!w->since || *w->since == _disk.flushes_failed()) return false;
                w->failed = error(errc::io, "a flush has failed, and what was to be committed may be lost");
                w->over.set();
                return true;
            });
            if (round.empty()) continue;
            outcome = co_await as_result(to_area(round));
        }
        if (!outcome && _must_strike) co_await as_result(heal());
        for (waiting* w : round) {
            if (!outcome) w->failed = outcome.error();
            w->over.set();
        }
        if (!outcome) continue;
        ++_rounds;
        _must_write = _committed = _area.exists();
        co_await as_result(heal());  // what fails is tried again before the next change
    }
    _running = false;
}

void committer::notice_failed_flush() noexcept {
    if (_committed && _placed_at != _disk.flushes_failed()) _must_write = true;
}

task<> committer::last_round_durable() {
    uint64_t covered = 0;
    do {
        co_await heal();
        covered = _placements;
        co_await _disk.flush();
        notice_failed_flush();
    } while (_must_write || _placements != covered);
    _committed = false;
}

task<> committer::to_area(const std::vector<waiting*>& round) {
    const std::size_t stride = _layout.md_page_size;
    if (!_memory) _memory = co_await _disk.memory((_images_max + 1) * stride);
    format::double_write_header header{
        .sequence = _sequence + 1, .flags = format::double_write_flag::redo, .store = _store};
    header.own_page = _area.header_page(0);
    _targets.clear();
    for (waiting* w : round) {
        for (const page_write& p : w->pages) {
            _targets.push_back(p.page);
            std::memcpy(_memory.data() + _targets.size() * stride, p.bytes.data(), p.bytes.size());
            header.images.push_back({p.page, format::crc_of_image(p.bytes)});
        }
    }
    if (!_area.exists()) co_return co_await without_area();
    format::page_bytes first = format::encode_double_write(header);
    std::memcpy(_memory.data(), first.data(), first.size());
    ++_sequence;
    const std::span<const std::byte> all{_memory.data(), (_targets.size() + 1) * stride};
    // COMMIT POINT
    result<> sent = co_await as_result(_disk.write_durably(_layout.offset_of_md_page(header.own_page), all));
    if (!sent) _must_strike = true;
    co_await std::move(sent);
}

// Whoever hears that it failed must not find it done later: what was there is read before, and put back.
task<> committer::without_area() {
    const std::size_t stride = _layout.md_page_size;
    if (!_former) _former = co_await _disk.memory(_images_max * stride);
    crew all;
    for (std::size_t i = 0; i < _targets.size(); ++i) {
        const std::span<const std::byte> next{_memory.data() + (i + 1) * stride, stride};
        all.start(read_former(_targets[i], {_former.data() + i * stride, stride}, next));
    }
    co_await all.done();
    const uint64_t since = _disk.flushes_failed();
    result<> sent = co_await as_result(in_place());
    if (sent) sent = co_await as_result(_disk.flush_since(since));  // COMMIT POINT
    if (!sent) _must_strike = true;
    co_await std::move(sent);
}

// A page that cannot be read is changed only by clearing it: whatever was there, it was nothing that could be kept.
task<> committer::read_former(uint32_t page, std::span<std::byte> to, std::span<const std::byte> next) {
    result<> outcome = co_await as_result(_disk.read(_layout.offset_of_md_page(page), to));
    if (outcome) co_return;
    if (!std::ranges::all_of(next, [](std::byte b) { return b == std::byte{}; })) co_await std::move(outcome);
    std::ranges::fill(to, std::byte{});
}

task<> committer::strike_out() {
    if (_area.exists()) co_return co_await clear_area();
    ++_placements;
    const uint64_t since = _disk.flushes_failed();
    crew all;
    for (std::size_t i = 0; i < _targets.size(); ++i) {
        all.start(write_page(_targets[i], _former.data() + i * _layout.md_page_size));
    }
    co_await all.done();
    co_await _disk.flush_since(since);
}

task<> committer::in_place() {
    ++_placements;
    _placed_at = _disk.flushes_failed();
    crew all;
    for (std::size_t i = 0; i < _targets.size(); ++i) {
        all.start(write_page(_targets[i], _memory.data() + (i + 1) * _layout.md_page_size));
    }
    co_await all.done();
}

task<> committer::heal() {
    auto one = co_await _healing.lock();
    notice_failed_flush();
    if (_must_write) {
        co_await in_place();
        _must_write = false;
    }
    if (_must_strike) {
        co_await strike_out();
        _must_strike = false;
    }
}

task<> committer::placed() {
    auto one = co_await _healing.lock();
    notice_failed_flush();
    if (!_must_write) co_return;
    co_await in_place();
    _must_write = false;
}

task<> committer::clear_area() {
    if (!_area.exists()) co_return;
    if (!_memory) _memory = co_await _disk.memory((_images_max + 1) * _layout.md_page_size);
    std::memset(_memory.data(), 0, _layout.md_page_size);
    co_await _disk.write_durably(_layout.offset_of_md_page(_area.header_page(0)),
                                 _memory.bytes().first(_layout.md_page_size));
}

bool committer::is_ready() noexcept {
    notice_failed_flush();
    // A round on its way writes in place itself. What was not struck out names what others might get.
    return !_must_strike && (!_must_write || _running);
}

task<> committer::ready() {
    if (!is_ready()) co_await heal();
}

task<> committer::stop() {
    co_await _tasks.close();
    VARVE_ASSERT(_queue.empty());
}

task<> committer::finish() {
    co_await last_round_durable();
    co_await clear_area();
}

}  // namespace varve::blob
