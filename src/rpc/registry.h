// The methods one system offers, by name, in the order they were added.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rpc/method.h"

namespace varve::rpc {

class registry {
  public:
    // A name may be added once (a programmer error otherwise).
    void add(method m);
    // A name of the past under which clients still call `name`, which must be there.
    void add_alias(std::string old_name, std::string_view name);

    // By name or alias; null when there is none.
    const method* find(std::string_view name) const noexcept;
    std::span<const std::unique_ptr<method>> methods() const noexcept { return _methods; }
    const std::map<std::string, const method*, std::less<>>& aliases() const noexcept { return _aliases; }

    // Calls a method in the given state of the system (startup or runtime). The task holds the reply or the error.
    task<json::value> call(std::string_view name, json::value params, states now) const;

  private:
    std::vector<std::unique_ptr<method>> _methods;
    std::map<std::string, const method*, std::less<>> _by_name;
    std::map<std::string, const method*, std::less<>> _aliases;
};

constexpr bool allowed_in(states allowed, states now) noexcept {
    return (static_cast<unsigned>(allowed) & static_cast<unsigned>(now)) != 0;
}

}  // namespace varve::rpc
