#include "json/splitter.h"

namespace varve::json {

namespace {

constexpr bool is_space(unsigned char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// What numbers and the words true, false, null consist of.
constexpr bool is_scalar(unsigned char c) noexcept {
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || (c >= 'a' && c <= 'z') || c == 'E';
}

constexpr std::size_t kept_at_rest = std::size_t{64} << 10;  // larger buffers are given back between documents

}  // namespace

splitter::step splitter::open(bool is_object) noexcept {
    if (_depth == max_depth) {
        _why = "Nested too deeply.";
        return step::garbage;
    }
    _objects[_depth++] = is_object;
    _state = state::structure;
    return step::more;
}

splitter::step splitter::close(bool is_object) noexcept {
    if (_depth == 0 || _objects[_depth - 1] != is_object) {
        _why = "A closing bracket does not match.";
        return step::garbage;
    }
    if (--_depth > 0) return step::more;
    _state = state::between;
    return step::end_after;
}

splitter::step splitter::advance_between(unsigned char c) noexcept {
    if (is_space(c)) return step::more;
    if (c == '{' || c == '[') return open(c == '{');
    if (c == '"') {
        _state = state::string;
        return step::more;
    }
    if (c == '-' || (c >= '0' && c <= '9') || c == 't' || c == 'f' || c == 'n') {
        _state = state::scalar;
        return step::more;
    }
    _why = "No JSON document begins like this.";
    return step::garbage;
}

splitter::step splitter::advance_structure(unsigned char c) noexcept {
    switch (c) {
        case '{':
        case '[':
            return open(c == '{');
        case '}':
        case ']':
            return close(c == '}');
        case '"':
            _state = state::string;
            return step::more;
        case ',':
        case ':':
            return step::more;
        default:
            if (is_space(c) || is_scalar(c)) return step::more;
            _why = "A character that has no place outside of strings.";
            return step::garbage;
    }
}

splitter::step splitter::advance(unsigned char c) noexcept {
    switch (_state) {
        case state::between:
            return advance_between(c);
        case state::structure:
            return advance_structure(c);
        case state::string:
            if (c == '\\') {
                _state = state::escape;
            } else if (c == '"') {
                _state = _depth > 0 ? state::structure : state::between;
                return _depth > 0 ? step::more : step::end_after;
            } else if (c < 0x20) {
                _why = "A control character in a string.";
                return step::garbage;
            }
            return step::more;
        case state::escape:
            _state = state::string;
            return step::more;
        case state::scalar:
            if (is_scalar(c)) return step::more;
            _state = state::between;
            return step::end_before;
        case state::broken:
            break;
    }
    return step::garbage;
}

std::unexpected<error> splitter::break_off(std::string_view why) {
    _state = state::broken;
    _kept = {};
    _given = 0;
    return fail(errc::rpc_parse_error, why);
}

result<std::optional<std::string_view>> splitter::next(std::string_view& bytes) {
    if (_given > 0) {  // the caller is done with the document returned last
        _given = 0;
        _kept.clear();
        if (_kept.capacity() > kept_at_rest) _kept.shrink_to_fit();
    }
    std::size_t first = 0;  // where the document begins in `bytes`
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bool was_between = _state == state::between;
        step s = advance(static_cast<unsigned char>(bytes[i]));
        if (s == step::garbage) return break_off(_why != nullptr ? _why : "The stream was broken before.");
        if (was_between) {
            first = i;
            continue;
        }
        std::size_t size = i - first + (s == step::end_before ? 0 : 1);
        if (_kept.size() + size > _limit) return break_off("The document is too large.");
        if (s == step::more) continue;
        std::string_view document = bytes.substr(first, size);
        bytes.remove_prefix(first + size);
        if (_kept.empty()) return document;
        _kept += document;
        _given = _kept.size();
        return std::string_view(_kept);
    }
    if (_state != state::between) _kept += bytes.substr(first);
    bytes = {};
    return std::nullopt;
}

}  // namespace varve::json
