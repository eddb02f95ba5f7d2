// The last events of the system, numbered: a client polls notify_get_notifications with the number it expects next.
#pragma once

#include <string>
#include <vector>

#include "json/value.h"

namespace varve::server {

class instance;

class notifications {
  public:
    static constexpr std::size_t kept = 1024;  // as SPDK keeps

    struct event {
        std::string type, about;
        uint64_t id = 0;
    };

    // "bdev_register" with the name of the bdev, ...
    void add_type(std::string type);
    void add(std::string type, std::string about);

    const std::vector<std::string>& types() const noexcept { return _types; }
    // At most `max` from number `first` on, or from the oldest kept.
    std::vector<event> since(uint64_t first, uint64_t max) const;

  private:
    std::vector<std::string> _types;
    // A ring in one piece: allocated one by one, what is kept would hold on to a page each of what thousands of bdevs
    // have left.
    std::vector<event> _events;
    uint64_t _next = 0;  // at _events[_next % kept]
};

// notify_get_types, notify_get_notifications
void add_notification_methods(instance& to);

}  // namespace varve::server
