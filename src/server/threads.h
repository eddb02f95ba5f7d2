// thread_*: what the lightweight threads do and where they may run.
#pragma once

namespace varve::server {

class instance;

// A clock tick, as replies count times, is a nanosecond.
constexpr unsigned long tick_rate = 1'000'000'000;

void add_thread_methods(instance& to);

}  // namespace varve::server
