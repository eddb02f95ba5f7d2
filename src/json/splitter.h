// splitter: cuts a stream of bytes into JSON documents that follow one another with nothing, or white space, between.
// It knows brackets, strings and the alphabet of what stands outside of strings; parse() judges the rest.
//
//   std::string_view bytes = ...;                       // what has arrived
//   for (;;) {
//       result<std::optional<std::string_view>> document = split.next(bytes);   // shortens bytes
//       if (!document) ... garbage: answer -32700 and close
//       if (!*document) break;                          // wait for more
//       ... parse(**document) ...                       // valid until the next call, and as long as the bytes are
//   }
#pragma once

#include <bitset>
#include <optional>
#include <string>
#include <string_view>

#include "json/parse.h"
#include "util/result.h"

namespace varve::json {

class splitter {
  public:
    static constexpr std::size_t default_limit = std::size_t{32} << 20;  // bytes in one document, as SPDK takes
    explicit splitter(std::size_t limit = default_limit) noexcept : _limit(limit) {}

    // Takes bytes up to the end of one document. Nullopt: all were taken and the document goes on. After an error the
    // stream cannot be followed any more; every later call fails too.
    result<std::optional<std::string_view>> next(std::string_view& bytes);

    // Bytes kept of a document that is not complete.
    std::size_t kept() const noexcept { return _kept.size() - _given; }
    bool inside_document() const noexcept { return _state != state::between; }

  private:
    enum class state : uint8_t {
        between,
        structure,  // inside an object or array, outside of strings
        string,
        escape,  // after a backslash
        scalar,  // a number, true, false or null at the top: ends at what cannot belong to it
        broken,
    };
    enum class step : uint8_t { more, end_after, end_before, garbage };

    step advance(unsigned char c) noexcept;
    step advance_between(unsigned char c) noexcept;
    step advance_structure(unsigned char c) noexcept;
    step open(bool is_object) noexcept;
    step close(bool is_object) noexcept;
    std::unexpected<error> break_off(std::string_view why);

    const std::size_t _limit;
    state _state = state::between;
    std::size_t _depth = 0;
    std::bitset<max_depth> _objects;  // which of the open brackets are braces
    std::string _kept;                // the beginning of the document, when it came in an earlier call
    std::size_t _given = 0;           // bytes of _kept that are the document returned last
    const char* _why = nullptr;
};

}  // namespace varve::json
