#include "json/parse.h"

#include <fmt/format.h>
#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <algorithm>

namespace varve::json {

namespace {

// Builds the value from RapidJSON's events. The stack holds finished values of containers that are still open.
class builder {
  public:
    bool Null() { return put(value()); }
    bool Bool(bool v) { return put(value(v)); }
    bool Int(int v) { return put(value(v)); }
    bool Uint(unsigned v) { return put(value(v)); }
    bool Int64(int64_t v) { return put(value(v)); }
    bool Uint64(uint64_t v) { return put(value(v)); }
    bool Double(double v) { return put(value(v)); }
    bool RawNumber(const char*, rapidjson::SizeType, bool) { return false; }
    bool String(const char* text, rapidjson::SizeType size, bool) {
        std::string_view s(text, size);
        return valid(s) && put(value(s));
    }
    bool Key(const char* text, rapidjson::SizeType size, bool) {
        _keys.emplace_back(text, size);
        return valid(_keys.back());
    }
    bool StartObject() { return open(value(object())); }
    bool StartArray() { return open(value(array())); }
    bool EndObject(rapidjson::SizeType) { return close(); }
    bool EndArray(rapidjson::SizeType) { return close(); }

    value take() { return std::move(_root); }
    const char* complaint() const noexcept { return _complaint; }

  private:
    // RapidJSON lets an escaped low surrogate without its high one through, as bytes that are not UTF-8.
    bool valid(std::string_view s) {
        for (std::size_t at = s.find('\xed'); at != std::string_view::npos; at = s.find('\xed', at + 1)) {
            if (at + 1 < s.size() && static_cast<unsigned char>(s[at + 1]) >= 0xa0) {
                return refuse("The surrogate pair in string is invalid.");
            }
        }
        return true;
    }
    bool refuse(const char* why) {
        _complaint = why;
        return false;
    }
    bool put(value v) {
        if (++_count > max_values) return refuse("Too many values in one document.");
        place(std::move(v));
        return true;
    }
    bool open(value container) {
        if (++_count > max_values) return refuse("Too many values in one document.");
        if (_open.size() == max_depth) return refuse("Nested too deeply.");
        _open.push_back(std::move(container));
        return true;
    }
    bool close() {
        value done = std::move(_open.back());
        _open.pop_back();
        place(std::move(done));
        return true;
    }
    void place(value v) {
        if (_open.empty()) {
            _root = std::move(v);
        } else if (array* a = _open.back().items()) {
            a->push_back(std::move(v));
        } else {
            _open.back().members()->add(std::move(_keys.back()), std::move(v));
            _keys.pop_back();
        }
    }

    value _root;
    std::vector<value> _open;
    std::vector<std::string> _keys;
    std::size_t _count = 0;
    const char* _complaint = nullptr;
};

template <unsigned Flags>
result<value> parse_with(std::string_view text) {
    rapidjson::MemoryStream raw(text.data(), text.size());
    rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> in(raw);
    rapidjson::Reader reader;
    builder out;
    rapidjson::ParseResult outcome = reader.Parse<Flags>(in, out);
    std::size_t offset = outcome.IsError() ? outcome.Offset() : in.Tell();
    const char* complaint = nullptr;
    if (outcome.IsError()) {
        complaint = out.complaint() != nullptr ? out.complaint() : rapidjson::GetParseError_En(outcome.Code());
    } else if (offset < text.size()) {  // a NUL byte after the document looks like its end to RapidJSON
        complaint = "The document root must not be followed by other values.";
    }
    if (complaint == nullptr) return out.take();
    offset = std::min(offset, text.size());
    auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n');
    return fail(errc::rpc_parse_error, fmt::format("line {}, offset {}: {}", line, offset, complaint));
}

}  // namespace

result<value> parse(std::string_view text, comments allow) {
    constexpr unsigned flags =
        rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag | rapidjson::kParseFullPrecisionFlag;
    return allow == comments::allowed ? parse_with < flags | rapidjson::kParseCommentsFlag > (text)
                                      : parse_with<flags>(text);
}

}  // namespace varve::json
