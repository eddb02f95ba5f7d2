// varve rpc: calls a method of a running server. Options and help of each method come from its schema in this program;
// a method it does not know is sent as it is given.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iterator>
#include <map>

#include "app/commands.h"
#include "app/known_methods.h"
#include "app/rpc_arguments.h"
#include "app/rpc_client.h"
#include "json/parse.h"
#include "json/write.h"
#include "rpc/reference.h"

namespace varve::app {

namespace {

int show_answer(const json::value& answer) {
    if (const json::value* e = answer.find("error")) {
        const std::string* message = (*e)["message"].string();
        fmt::print(stderr, "error {}: {}\n", (*e)["code"].integer().value_or(0), message ? *message : json::write(*e));
        return exit_failed;
    }
    const json::value* result = answer.find("result");
    fmt::print("{}\n", json::write(result != nullptr ? *result : answer, 2));
    return exit_ok;
}

int send(const rpc_options& o, const std::string& document) {
    auto answer = exchange(o.socket, document, o.timeout_s);
    if (!answer) {
        fmt::print(stderr, "varve rpc: {}\n", answer.error().message());
        return exit_no_answer;
    }
    if (answer->items() != nullptr) {  // of a batch
        fmt::print("{}\n", json::write(*answer, 2));
        return exit_ok;
    }
    return show_answer(*answer);
}

// "-" is standard input. A request without id is given one, so that there is an answer to wait for.
int send_document(const rpc_options& o, std::string text) {
    if (text == "-") text.assign(std::istreambuf_iterator<char>(std::cin), {});
    auto document = json::parse(text);
    if (!document) {
        fmt::print(stderr, "varve rpc: {}\n", document.error().message());
        return exit_usage;
    }
    if (json::object* request = document->members(); request != nullptr && request->find("id") == nullptr) {
        request->add("id", 1);
    }
    return send(o, json::write(*document));
}

int call_method(rpc_options o, const arguments& call) {
    known_methods known;
    const rpc::method* m = known.get() != nullptr ? known.get()->find(call[0]) : nullptr;
    int status = exit_ok;
    auto params = m != nullptr ? parse_rpc_arguments(call, *m, o, status) : parse_raw_arguments(call, o, status);
    if (!params) return status;
    json::object request{{"jsonrpc", "2.0"}, {"id", 1}, {"method", call[0]}};
    if (!params->empty()) request.add("params", std::move(*params));
    return send(o, json::write(json::value(std::move(request))));
}

std::string method_list() {
    known_methods known;
    std::string out = "Methods (`varve rpc METHOD --help` tells their parameters):\n";
    if (known.get() == nullptr) return out;
    std::map<std::string, std::string> sorted;
    for (const auto& m : known.get()->methods()) sorted.emplace(m->name, m->description);
    for (const auto& [name, description] : sorted) {
        fmt::format_to(std::back_inserter(out), "  {:<40} {}\n", name, description);
    }
    return out;
}

}  // namespace

int rpc_command(const arguments& args) {
    CLI::App app(
        "Calls a method of a running server and prints its result as JSON.\n"
        "Usage: varve rpc [OPTIONS] METHOD [--PARAM VALUE...]\n"
        "       varve rpc [OPTIONS] --json DOCUMENT",
        "varve rpc");
    rpc_options o;
    std::string document;
    bool reference = false, schema = false;
    app.add_option("-s,--socket", o.socket, "Unix socket of the server")->capture_default_str();
    app.add_option("-t,--timeout", o.timeout_s, "seconds to wait for the answer")->capture_default_str();
    app.add_option("--json", document, "send this JSON-RPC document; - reads it from standard input")
        ->type_name("JSON");
    app.add_flag("--reference", reference, "print the reference page of all methods");
    app.add_flag("--schema", schema, "print all methods with their parameters, as JSON");
    app.prefix_command();  // the method and what follows it are the method's
    app.set_help_flag();
    bool help = false;
    app.add_flag("-h,--help", help, "this text and the list of methods");
    try {
        std::vector<std::string> rest(args.rbegin(), args.rend() - 1);
        app.parse(std::move(rest));
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? exit_ok : exit_usage;
    }
    const arguments call = app.remaining();
    if (help || (call.empty() && document.empty() && !reference && !schema)) {
        fmt::print(help ? stdout : stderr, "{}\n{}", app.help(), method_list());
        return help ? exit_ok : exit_usage;
    }
    if (reference || schema) {
        known_methods known;
        if (known.get() == nullptr) return exit_failed;
        fmt::print("{}",
                   reference ? rpc::reference_page(*known.get()) : json::write(rpc::schema_of(*known.get()), 2) + "\n");
        return exit_ok;
    }
    return document.empty() ? call_method(std::move(o), call) : send_document(o, std::move(document));
}

}  // namespace varve::app
