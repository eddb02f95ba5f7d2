#include "net/address.h"

#include <algorithm>
#include <charconv>

namespace varve::net {
namespace {

using family = env::address::family;

std::unexpected<error> no_address(std::string_view text) {
    return fail(errc::invalid,
                "'" + std::string(text) + "' is no address: host:port, [IPv6 address]:port or /path is expected");
}

bool read_port(std::string_view text, uint16_t& port) {
    auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
    return failure == std::errc() && end == text.data() + text.size();
}

}  // namespace

result<env::address> parse_address(std::string_view text, uint16_t default_port) {
    if (text.starts_with('/')) return env::address{family::unix_path, std::string(text), 0};
    std::string_view host = text, port;
    bool six = false, has_port = false;
    if (text.starts_with('[')) {
        std::size_t closing = text.find(']');
        if (closing == text.npos) return no_address(text);
        six = true;
        host = text.substr(1, closing - 1);
        std::string_view rest = text.substr(closing + 1);
        has_port = rest.starts_with(':');
        if (!rest.empty() && !has_port) return no_address(text);
        if (has_port) port = rest.substr(1);
    } else if (std::ranges::count(text, ':') > 1) {
        six = true;
    } else if (std::size_t colon = text.find(':'); colon != text.npos) {
        has_port = true;
        host = text.substr(0, colon);
        port = text.substr(colon + 1);
    }
    env::address made{six ? family::ipv6 : family::ipv4, std::string(host), default_port};
    if (host.empty() || (has_port && !read_port(port, made.port))) return no_address(text);
    return made;
}

}  // namespace varve::net
