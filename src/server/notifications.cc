#include "server/notifications.h"

#include <algorithm>
#include <limits>

#include "server/instance.h"

namespace varve::server {

void notifications::add_type(std::string type) { _types.push_back(std::move(type)); }

void notifications::add(std::string type, std::string about) {
    _events.reserve(kept);
    event made{std::move(type), std::move(about), _next++};
    if (_events.size() < kept) {
        _events.push_back(std::move(made));
    } else {
        _events[made.id % kept] = std::move(made);
    }
}

std::vector<notifications::event> notifications::since(uint64_t first, uint64_t max) const {
    std::vector<event> out;
    for (uint64_t id = std::max(first, _next - _events.size()); id < _next && out.size() < max; ++id) {
        out.push_back(_events[id % kept]);
    }
    return out;
}

namespace {

struct get_params {
    uint64_t id = 0;
    uint64_t max = std::numeric_limits<uint64_t>::max();
    static constexpr auto fields = std::tuple{rpc::optional(&get_params::id, "id", "Number of the first event wanted"),
                                              rpc::optional(&get_params::max, "max", "How many events at most")};
};

json::value get(instance& i, get_params p) {
    json::array out;
    for (const auto& e : i.events().since(p.id, p.max)) {
        out.push_back(json::object{{"type", e.type}, {"ctx", e.about}, {"id", e.id}});
    }
    return out;
}

}  // namespace

void add_notification_methods(instance& to) {
    to.methods().add(rpc::make_method("notify_get_types", "The types of events there are", [](instance& i) {
                         return i.events().types();
                     }).bind(to));
    to.methods().add(rpc::make_method("notify_get_notifications", "The events from a number on", get).bind(to));
}

}  // namespace varve::server
