// Always-on assertions for programmer errors. Nothing that a disk, a client or the network can contain may reach one.
#pragma once

namespace varve {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;
}

#define VARVE_ASSERT(expression)                                               \
    (__builtin_expect(static_cast<bool>(expression), 1) ? static_cast<void>(0) \
                                                        : ::varve::assertion_failed(#expression, __FILE__, __LINE__))
