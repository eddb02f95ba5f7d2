#include "json/write.h"

#include <rapidjson/memorystream.h>
#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <algorithm>
#include <cmath>

namespace varve::json {

namespace {

// Names and attributes come from disks of any making. Each byte that belongs to no character becomes U+FFFD.
std::string mended(std::string_view text) {
    std::string out;
    rapidjson::MemoryStream from(text.data(), text.size());
    while (from.Tell() < text.size()) {
        const char* start = from.src_;
        rapidjson::StringBuffer unused;
        if (rapidjson::UTF8<>::Validate(from, unused) && from.src_ <= text.data() + text.size()) {
            out.append(start, from.src_);
        } else {
            out += "\xef\xbf\xbd";
            from.src_ = start + 1;
        }
    }
    return out;
}

// Gives RapidJSON's writer characters only.
template <class Put>
void put_text(std::string_view text, Put put) {
    bool ascii = std::ranges::all_of(text, [](char c) { return static_cast<signed char>(c) >= 0; });
    const std::string safe = ascii ? std::string() : mended(text);
    if (!ascii) text = safe;
    put(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

// Depth is bounded by whoever built the value: parse() by max_depth, code by what it says.
template <class Writer>
void put(Writer& to, const value& v) {
    switch (v.type()) {
        case value::kind::null:
            to.Null();
            return;
        case value::kind::boolean:
            to.Bool(*v.boolean());
            return;
        case value::kind::negative:
            to.Int64(*v.integer());
            return;
        case value::kind::unsigned_integer:
            to.Uint64(*v.unsigned_integer());
            return;
        case value::kind::real:
            if (double d = *v.number(); std::isfinite(d)) {
                to.Double(d);
            } else {
                to.Null();
            }
            return;
        case value::kind::string:
            put_text(*v.string(), [&](auto... text) { to.String(text...); });
            return;
        case value::kind::array:
            to.StartArray();
            for (const value& item : *v.items()) put(to, item);
            to.EndArray();
            return;
        case value::kind::object:
            to.StartObject();
            for (const member& m : *v.members()) {
                put_text(m.name, [&](auto... text) { to.Key(text...); });
                put(to, m.data);
            }
            to.EndObject();
            return;
    }
}

}  // namespace

std::string write(const value& v, unsigned indent) {
    rapidjson::StringBuffer out;
    if (indent == 0) {
        rapidjson::Writer<rapidjson::StringBuffer> writer(out);
        put(writer, v);
    } else {
        rapidjson::PrettyWriter<rapidjson::StringBuffer> writer(out);
        writer.SetIndent(' ', indent);
        put(writer, v);
    }
    return {out.GetString(), out.GetSize()};
}

std::string excerpt(const value& v, std::size_t limit) {
    if (const array* a = v.items(); a != nullptr && a->size() > limit)
        return "an array of " + std::to_string(a->size());
    if (const object* o = v.members(); o != nullptr && o->size() > limit) return "an object";
    std::string text = write(v);
    if (text.size() <= limit) return text;
    std::size_t cut = limit;
    while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xc0) == 0x80) --cut;  // not inside a character
    text.resize(cut);
    return text + "...";
}

}  // namespace varve::json
