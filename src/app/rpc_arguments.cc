#include "app/rpc_arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <list>

#include "json/parse.h"
#include "rpc/reference.h"

namespace varve::app {

namespace {

bool is_integer(std::string_view type) { return type.starts_with("int") || type.starts_with("uint"); }

std::optional<json::value> integer_of(std::string_view word) {
    bool negative = word.starts_with('-');
    std::string_view digits = word.substr(negative);
    bool hex = digits.starts_with("0x") || digits.starts_with("0X");
    if (hex) digits.remove_prefix(2);
    uint64_t n = 0;
    auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), n, hex ? 16 : 10);
    if (digits.empty() || ec != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    if (!negative) return json::value(n);
    if (n > uint64_t{1} << 63) return std::nullopt;
    return json::value(static_cast<int64_t>(0 - n));
}

std::optional<json::value> boolean_of(std::string_view word) {
    if (word == "true" || word == "yes" || word == "1") return json::value(true);
    if (word == "false" || word == "no" || word == "0") return json::value(false);
    return std::nullopt;
}

json::value json_or_string(std::string_view word) {
    auto parsed = json::parse(word);
    return parsed ? std::move(*parsed) : json::value(word);
}

json::value array_of(const std::vector<std::string>& words, const rpc::field_schema& parameter) {
    rpc::field_schema item = parameter;
    item.type = parameter.items;
    json::array out;
    for (const std::string& word : words) {
        auto whole = json::parse(word);
        if (whole && whole->items() != nullptr) {
            for (json::value& v : *whole->items()) out.push_back(std::move(v));
        } else {
            out.push_back(value_of(word, item));
        }
    }
    return out;
}

// "--block-size=512" as "--block_size=512", when that is what the parameter is called.
arguments with_real_names(arguments call, const rpc::method& m) {
    for (std::string& word : call) {
        if (!word.starts_with("--")) continue;
        std::string name = word.substr(2, word.find('=') - 2);
        std::ranges::replace(name, '-', '_');
        if (std::ranges::find(m.params, name, &rpc::field_schema::name) != m.params.end()) {
            word.replace(2, name.size(), name);
        }
    }
    return call;
}

struct given {
    const rpc::field_schema* parameter;
    std::vector<std::string> words;
    CLI::Option* option = nullptr;
};

void add_own_options(CLI::App& app, rpc_options& how) {
    app.add_option("-s", how.socket, "Unix socket of the server")->group("Connection");
    app.add_option("-t", how.timeout_s, "seconds to wait for the answer")->group("Connection");
}

// False: told, and `status` says how to end.
bool parse(CLI::App& app, const arguments& call, int& status) {
    try {
        std::vector<std::string> rest(call.rbegin(), call.rend() - 1);
        app.parse(std::move(rest));
        return true;
    } catch (const CLI::ParseError& e) {
        status = app.exit(e) == 0 ? exit_ok : exit_usage;
        return false;
    }
}

}  // namespace

json::value value_of(std::string_view word, const rpc::field_schema& parameter) {
    std::optional<json::value> out;
    if (is_integer(parameter.type)) {
        out = integer_of(word);
    } else if (parameter.type == "boolean") {
        out = boolean_of(word);
    } else if (parameter.type == "number" || parameter.type == "object" || parameter.type == "any") {
        return json_or_string(word);
    }
    return out ? std::move(*out) : json::value(word);
}

std::optional<json::object> parse_rpc_arguments(const arguments& call, const rpc::method& m, rpc_options& how,
                                                int& status) {
    CLI::App app(m.description, "varve rpc " + m.name);
    std::list<given> all;
    for (const rpc::field_schema& parameter : m.params) {
        given& g = all.emplace_back(&parameter);
        g.option = app.add_option("--" + parameter.name, g.words, rpc::about(parameter));
        g.option->type_name(rpc::type_text(parameter))->required(parameter.required);
        g.option->allow_extra_args(false);
        if (parameter.type != "array") {
            g.option->expected(parameter.type == "boolean" ? 0 : 1, 1);
            g.option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        }
    }
    add_own_options(app, how);
    if (!parse(app, with_real_names(call, m), status)) return std::nullopt;
    json::object params;
    for (const given& g : all) {
        if (g.option->count() == 0) continue;
        if (g.parameter->type == "array") {
            params.add(g.parameter->name, array_of(g.words, *g.parameter));
        } else if (g.words.empty() || (g.words.back().empty() && g.parameter->type == "boolean")) {
            params.add(g.parameter->name, true);
        } else {
            params.add(g.parameter->name, value_of(g.words.back(), *g.parameter));
        }
    }
    return params;
}

std::optional<json::object> parse_raw_arguments(const arguments& call, rpc_options& how, int& status) {
    CLI::App app("A method this program does not know: its parameters are sent as given.", "varve rpc " + call[0]);
    add_own_options(app, how);
    app.allow_extras();
    if (!parse(app, call, status)) return std::nullopt;
    json::object params;
    const std::vector<std::string> words = app.remaining();
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::string_view word = words[i];
        if (!word.starts_with("--")) {
            fmt::print(stderr, "varve rpc {}: '{}' is no --PARAM\n", call[0], word);
            status = exit_usage;
            return std::nullopt;
        }
        word.remove_prefix(2);
        std::size_t equals = word.find('=');
        if (equals != std::string_view::npos) {
            params.set(word.substr(0, equals), json_or_string(word.substr(equals + 1)));
        } else if (i + 1 < words.size() && !words[i + 1].starts_with("--")) {
            params.set(word, json_or_string(words[++i]));
        } else {
            params.set(word, true);
        }
    }
    return params;
}

}  // namespace varve::app
