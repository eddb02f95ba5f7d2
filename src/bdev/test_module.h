// For tests of modules: a system with one, driven by its JSON-RPC methods as clients drive it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "bdev/module.h"
#include "bdev/test_device.h"
#include "json/parse.h"
#include "json/write.h"

namespace varve::bdev {

struct module_system {
    explicit module_system(thread::world_kind kind, std::unique_ptr<module> made)
        : bdevs(kind), tested(std::move(made)) {
        tested->attach(methods, bdevs.devices);
    }
    void run(task<> body) { bdevs.run(whole(std::move(body))); }

    task<json::value> call(std::string method, std::string params = "{}") {
        json::value parsed = co_await json::parse(params);
        co_return co_await methods.call(method, std::move(parsed), rpc::states::runtime);
    }
    // What a client reads as the error's code; 0: none.
    task<int> code(std::string method, std::string params = "{}") {
        auto outcome = co_await as_result(call(std::move(method), std::move(params)));
        co_return outcome ? 0 : rpc_code(outcome.error().code());
    }
    result<descriptor> open(std::string_view name) { return bdevs.devices.open(name, open_mode::read_write, {}); }
    const device* find(std::string_view name) { return bdevs.devices.find(name); }
    // What save_config writes, without what belongs to the bdev layer: a line a call.
    std::string saved() const {
        std::string out;
        auto add = [&](const rpc::call& c) { out += c.method + " " + json::write(c.params) + "\n"; };
        for (const rpc::call& c : tested->config()) add(c);
        for (const device* d : bdevs.devices.devices()) {
            if (auto made_by = d->recreate()) add(*made_by);
        }
        return out;
    }
    // Makes everything again from what was saved.
    task<> load(std::string lines) {
        while (!lines.empty()) {
            std::string line = lines.substr(0, lines.find('\n'));
            lines.erase(0, line.size() + 1);
            std::size_t gap = line.find(' ');
            co_await call(line.substr(0, gap), line.substr(gap + 1));
        }
        co_await bdevs.devices.wait_for_examine();
    }

    bdev_system bdevs;
    rpc::registry methods;
    std::unique_ptr<module> tested;

  private:
    task<> whole(task<> body) {
        result<> outcome = co_await as_result(std::move(body));
        co_await tested->stop();
        co_await std::move(outcome);
    }
};

// Waits for the answer to one request.
inline task<status> answer_to(channel& c, op what, uint64_t lba, uint32_t blocks, std::span<std::byte> memory = {}) {
    pending r(what, lba, blocks);
    r.data(memory);
    r.go(c);
    co_await r.over.wait();
    co_return r.status;
}

// A test is a coroutine on a system with the module that `made` gives. `worlds`: TEST_P or TEST_IN_WORLDS.
#define MODULE_TEST(worlds, suite, name, made)            \
    task<> name(::varve::bdev::module_system& s);         \
    worlds(suite, name) {                                 \
        ::varve::bdev::module_system s(GetParam(), made); \
        s.run(name(s));                                   \
    }                                                     \
    task<> name(::varve::bdev::module_system& s)

}  // namespace varve::bdev
