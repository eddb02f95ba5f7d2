// result<T>: a value or an error. Errors are values; they are propagated by co_await (thread/task.h) or VARVE_TRY, and
// logged once, where they are handled. No exception crosses a function of ours.
#pragma once

#include <expected>
#include <string>
#include <utility>

#include "util/errc.h"

namespace varve {

class [[nodiscard]] error {
  public:
    error(errc code, std::string message) : _code(code), _message(std::move(message)) {}
    explicit error(errc code) : _code(code), _message(text_of(code)) {}

    errc code() const noexcept { return _code; }
    const std::string& message() const noexcept { return _message; }

    // The same code with "context: " before the message.
    error in(std::string_view context) && {
        _message.insert(0, std::string(context) + ": ");
        return std::move(*this);
    }

  private:
    errc _code;
    std::string _message;
};

template <class T = void>
using result = std::expected<T, error>;

// `return fail(errc::invalid, "block_size must be 512 or 4096");` The code's own text comes first, as SPDK's clients
// search for it ("No such device: bdev Malloc7 does not exist").
inline std::unexpected<error> fail(errc code) { return std::unexpected(error(code)); }
inline std::unexpected<error> fail(errc code, std::string_view explanation) {
    std::string message(text_of(code));
    message += ": ";
    message += explanation;
    return std::unexpected(error(code, std::move(message)));
}
inline std::unexpected<error> fail(error e) { return std::unexpected(std::move(e)); }

}  // namespace varve

// Leaves the enclosing (non-coroutine) function with the error of `expression`, or goes on. In coroutines: co_await.
#define VARVE_TRY(expression)                                                     \
    do {                                                                          \
        if (auto varve_try_result = (expression); !varve_try_result) [[unlikely]] \
            return std::unexpected(std::move(varve_try_result).error());          \
    } while (false)
