#include "env/sim/scheduler.h"

#include <algorithm>

#include "util/assert.h"

namespace varve::env::sim {

void scheduler::add(worker& w) {
    if (w.finished()) return;
    _seats.push_back({.who = &w, .number = _numbers++});
    stir();
}

void scheduler::remove(worker& w) {
    std::erase_if(_seats, [&](const seat& s) { return s.who == &w; });
}

void scheduler::stir() noexcept {
    for (seat& s : _seats) s.quiet = false;
}

void scheduler::starve(const worker& w, time_ns until) {
    for (seat& s : _seats) {
        if (s.who == &w) s.starved_until = until;
    }
}

scheduler::seat* scheduler::draw() {
    uint64_t ready = 0;
    for (const seat& s : _seats) ready += !s.quiet && s.starved_until <= _now;
    if (ready == 0) return nullptr;
    uint64_t drawn = _chance.below(ready);
    for (seat& s : _seats) {
        if (!s.quiet && s.starved_until <= _now && drawn-- == 0) return &s;
    }
    return nullptr;
}

void scheduler::give_turn(seat& s) {
    uint64_t number = s.number;
    worker& who = *s.who;
    _in_turn = true;
    bool worked = who.turn();
    _in_turn = false;
    // The turn may have changed the seats (a system may start another).
    if (worked) stir();
    for (seat& each : _seats) {
        if (each.number == number) each.quiet = !worked;
    }
    if (who.finished()) remove(who);
    _log.record(_now, worked ? "turn" : "empty turn", number);
    advance_to(_now + _chance.between(_how.turn_min, _how.turn_max));
}

void scheduler::disturb() {
    if (_chance.one_in(_how.starve_one_in)) {
        seat& victim = _seats[_chance.below(_seats.size())];
        victim.starved_until = _now + _chance.between_log<time_ns>(10 * microseconds, _how.starve_max);
        _log.record(_now, "starve", victim.number, static_cast<uint64_t>(victim.starved_until));
    }
    if (_chance.one_in(_how.pause_one_in)) {
        advance_to(_now + _chance.between_log<time_ns>(10 * microseconds, _how.pause_max));
        _log.record(_now, "pause");
    }
}

void scheduler::advance_to(time_ns at) {
    _now = std::max(_now, at);
    if (_events.run_due(_now)) stir();
}

time_ns scheduler::next_moment() const {
    time_ns next = _events.next();
    for (const seat& s : _seats) {
        next = std::min(next, s.starved_until > _now ? s.starved_until : s.who->next_deadline());
    }
    return next;
}

bool scheduler::step() {
    if (++_steps > _how.steps_max || _now > _how.time_max) return false;
    if (seat* s = draw()) {
        give_turn(*s);
        if (!_seats.empty()) disturb();
        return true;
    }
    time_ns next = next_moment();
    if (next == never) return false;
    advance_to(next);
    stir();
    return true;
}

bool scheduler::pass_time(time_ns limit) {
    time_ns next = std::min(_events.next(), limit);
    if (next == never || ++_steps > _how.steps_max) return false;
    advance_to(next);
    return true;
}

}  // namespace varve::env::sim
