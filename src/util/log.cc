#include "util/log.h"

#include <array>
#include <utility>

#include "util/escape.h"

namespace varve {

namespace {
constexpr std::array<std::pair<log_level, std::string_view>, 6> level_names{{{log_level::disabled, "DISABLED"},
                                                                             {log_level::error, "ERROR"},
                                                                             {log_level::warning, "WARNING"},
                                                                             {log_level::notice, "NOTICE"},
                                                                             {log_level::info, "INFO"},
                                                                             {log_level::debug, "DEBUG"}}};
}  // namespace

std::string_view name_of(log_level level) noexcept {
    for (const auto& [value, name] : level_names) {
        if (value == level) return name;
    }
    return "UNKNOWN";
}

std::optional<log_level> log_level_from(std::string_view name) noexcept {
    for (const auto& [value, text] : level_names) {
        if (text == name) return value;
    }
    return std::nullopt;
}

bool logger::debugging() const noexcept {
    return flag() && (_owner.print_level() >= log_level::debug || _owner.record_level() >= log_level::debug);
}

void logger::write(log_level level, std::string_view text) const {
    bool print = level <= _owner.print_level(), record = level <= _owner.record_level();
    if (!print && !record) return;
    const bool timed = _owner._timestamps.load(std::memory_order_relaxed);
    if (has_controls(text)) return _owner._sink({level, _name, escaped(text), print, record, timed});
    _owner._sink({level, _name, text, print, record, timed});
}

logger& log::component(std::string_view name) {
    auto found = _components.find(name);
    if (found == _components.end()) {
        found = _components.emplace(name, std::make_unique<logger>(*this, std::string(name))).first;
    }
    return *found->second;
}

bool log::set_flag(std::string_view name, bool on) noexcept {
    bool any = false;
    for (auto& [own_name, component] : _components) {
        if (name != "all" && name != own_name) continue;
        component->set_flag(on);
        any = true;
    }
    return any;
}

}  // namespace varve
