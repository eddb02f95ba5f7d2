#include "server/instance.h"

#include <gtest/gtest.h>

#include "json/parse.h"
#include "json/write.h"
#include "server/kept_options.h"
#include "server/saved_config.h"
#include "server/scheduler.h"
#include "thread/awaits.h"
#include "thread/gate.h"
#include "thread/test_world.h"

namespace varve::server {
namespace {

struct thing {
    std::string name;
    uint32_t size = 1;
    static constexpr auto fields = std::tuple{rpc::required(&thing::name, "name", "Name"),
                                              rpc::optional(&thing::size, "size", "Size", rpc::positive)};
};

// A subsystem with things, made at run time, and a limit, set at start-up.
class shelf final : public rpc::subsystem {
  public:
    explicit shelf(std::vector<std::string>& journal) : _journal(journal) {}
    std::string_view name() const noexcept override { return "shelf"; }
    std::vector<std::string> depends_on() const override { return {"iobuf"}; }
    void add_methods(rpc::registry& to) override {
        to.add(rpc::make_method("thing_create", "", [](shelf& s, thing t) -> result<std::string> {
                   for (const thing& other : s.things) {
                       if (other.name == t.name) return fail(errc::exists, t.name);
                   }
                   s.things.push_back(t);
                   return t.name;
               }).bind(*this));
        to.add(rpc::make_method(
                   "thing_set_default", "", [](shelf& s, rpc::update<thing> t) { s.standard = t.onto(s.standard); },
                   rpc::states::startup)
                   .bind(*this));
        to.add(rpc::make_method("thing_both", "", [](shelf& s) { ++s.both; }, rpc::states::any).bind(*this));
    }
    task<> start() override {
        co_await yield();
        _journal.push_back("start");
        if (fails) co_await fail(errc::io, "no shelf");
    }
    task<> stop() override {
        co_await yield();
        _journal.push_back("stop");
    }
    std::optional<std::vector<rpc::call>> config() const override {
        std::vector<rpc::call> out{{"thing_set_default", rpc::encode(standard)}};
        for (const thing& t : things) out.push_back({"thing_create", rpc::encode(t)});
        out.push_back({"thing_both", {}});
        return out;
    }

    std::vector<thing> things;
    thing standard{"standard", 7};
    int both = 0;
    bool fails = false;

  private:
    std::vector<std::string>& _journal;
};

class no_config final : public rpc::subsystem {
  public:
    std::string_view name() const noexcept override { return "scsi"; }
    std::optional<std::vector<rpc::call>> config() const override { return std::nullopt; }
};

struct one_instance {
    thread::system_of system{thread::world_kind::epoll, 1};
    std::vector<std::string> journal, printed;
    log lines{[this](const log::line& l) { printed.emplace_back(l.text); }};
    instance i{*system.rt, lines, {.process_id = 42}};
    shelf* things = nullptr;

    one_instance() {
        i.add(make_scheduler(*system.rt));
        i.add(make_sock());
        i.add(make_iobuf());
        i.add(make_accel());
        auto s = std::make_unique<shelf>(journal);
        things = s.get();
        i.add(std::move(s));
        i.add(std::make_unique<no_config>());
        i.add_old_names();
    }
    void run(std::function<task<>(one_instance&)> body) {
        system.run([](one_instance& self, std::function<task<>(one_instance&)> b) -> task<> {
            auto outcome = co_await as_result(b(self));
            co_await self.i.stop();
            co_await std::move(outcome);
        }(*this, std::move(body)));
    }
    task<std::string> call(std::string method, std::string params = "null") {
        auto outcome = co_await as_result(i.call(method, *json::parse(params)));
        co_return outcome ? json::write(*outcome)
                          : std::to_string(rpc_code(outcome.error().code())) + " " + outcome.error().message();
    }
};

TEST(instance, states_and_order) {
    one_instance t;
    t.run([](one_instance& self) -> task<> {
        EXPECT_EQ(co_await self.call("thing_create", R"({"name":"a"})"),
                  "-1 Method may only be called after framework is initialized using framework_start_init RPC.");
        EXPECT_EQ(co_await self.call("thing_set_default", R"({"name":"d"})"), "true");
        EXPECT_EQ(self.things->standard.size, 7u);  // an update leaves the rest
        EXPECT_EQ(co_await self.call("framework_start_init"), "true");
        EXPECT_EQ(co_await self.call("framework_wait_init"), "true");
        EXPECT_TRUE((co_await self.call("framework_start_init")).starts_with("-1 Method may only be called before"));
        EXPECT_EQ(co_await self.call("thing_create", R"({"name":"a"})"), "\"a\"");
        EXPECT_EQ(co_await self.call("thing_create", R"({"name":"a"})"), "-17 File exists: a");
        EXPECT_EQ(co_await self.call("get_subsystems"), co_await self.call("framework_get_subsystems"));
        EXPECT_EQ(co_await self.call("framework_get_subsystems"),
                  R"([{"subsystem":"scheduler","depends_on":[]},{"subsystem":"sock","depends_on":[]},)"
                  R"({"subsystem":"iobuf","depends_on":[]},{"subsystem":"accel","depends_on":["iobuf"]},)"
                  R"({"subsystem":"shelf","depends_on":["iobuf"]},{"subsystem":"scsi","depends_on":[]}])");
        EXPECT_EQ(co_await self.call("framework_get_config", R"({"name":"scsi"})"), "null");
        EXPECT_EQ(co_await self.call("framework_get_config", R"({"name":"nope"})"),
                  "-32602 Invalid parameters: Subsystem 'nope' not found");
    });
    EXPECT_EQ(t.journal, (std::vector<std::string>{"start", "stop"}));
}

TEST(instance, a_failed_start_is_everybodys_error) {
    one_instance t;
    t.things->fails = true;
    t.run([](one_instance& self) -> task<> {
        std::string waited;
        gate waiting;
        waiting.spawn([](one_instance& of, std::string& to) -> task<> { to = co_await of.call("framework_wait_init"); }(
                                                                self, waited),
                      [](error) {});
        EXPECT_EQ(co_await self.call("framework_start_init"), "-5 shelf: Input/output error: no shelf");
        co_await waiting.close();
        EXPECT_EQ(waited, "-5 shelf: Input/output error: no shelf");
        EXPECT_EQ(self.i.state(), rpc::states::startup);
    });
    EXPECT_EQ(t.journal, (std::vector<std::string>{"start", "stop"}));
}

TEST(instance, stop_releases_who_waits_for_the_start) {
    one_instance t;
    std::string waited;
    gate waiting;
    t.run([&](one_instance& self) -> task<> {
        waiting.spawn([](one_instance& of, std::string& to) -> task<> { to = co_await of.call("framework_wait_init"); }(
                                                                self, waited),
                      [](error) {});
        co_return;
    });
    EXPECT_EQ(waited, "-125 Operation canceled: the system ends");
    EXPECT_TRUE(t.journal.empty());
}

const char* const config_text = R"({
  "subsystems": [  // as a person may write it
    {"subsystem": "sock", "config": [{"method": "sock_set_default_impl", "params": {"impl_name": "uring"}}]},
    {"subsystem": "fsdev", "config": [{"method": "fsdev_set_opts", "params": {"fsdev_io_pool_size": 65535}}]},
    {"subsystem": "shelf", "config": [
      {"method": "thing_set_default", "params": {"name": "d", "size": 3}},
      {"method": "bdev_nvme_set_options", "params": {"action_on_timeout": "none"}},
      {"method": "thing_both"},
      [{"method": "thing_create", "params": {"name": "a"}}, {"method": "thing_create", "params": {"name": "b", "size": 2}}]]},
    {"subsystem": "scsi", "config": null}]})";

TEST(instance, loads_a_configuration_and_saves_what_loads_again) {
    one_instance t;
    t.run([](one_instance& self) -> task<> {
        co_await load_all(self.i, co_await read_config(config_text), false);
        EXPECT_EQ(self.things->things.size(), 2u);
        EXPECT_EQ(self.things->standard.size, 3u);
        EXPECT_EQ(self.things->both, 1);
        EXPECT_EQ(co_await self.call("sock_get_default_impl"), R"({"impl_name":"uring"})");
        EXPECT_EQ(self.printed.size(), 2u);  // what was skipped
    });
    json::value saved = saved_config(t.i);
    one_instance again;
    again.run([&](one_instance& self) -> task<> {
        co_await load_all(self.i, saved, false);
        EXPECT_EQ(json::write(saved_config(self.i)), json::write(saved));
        EXPECT_TRUE(self.printed.empty());
    });
}

TEST(instance, load_config_by_rpc_in_either_state) {
    for (bool started : {false, true}) {
        one_instance t;
        t.run([started](one_instance& self) -> task<> {
            if (started) co_await self.i.start();
            std::string config = R"({"subsystems":[{"subsystem":"shelf","config":[{"method":"thing_set_default",)"
                                 R"("params":{"name":"d","size":3}},{"method":"thing_both"},)"
                                 R"({"method":"thing_create","params":{"name":"a"}}]}]})";
            EXPECT_EQ(co_await self.call("load_config", config), "true");
            EXPECT_EQ(self.things->things.size(), 1u);
            EXPECT_EQ(self.things->both, 1);
            EXPECT_EQ(self.things->standard.size, started ? 7u : 3u);
        });
    }
}

TEST(instance, bad_configurations) {
    const std::pair<const char*, const char*> cases[] = {
        {"[]", "Invalid parameters: configuration: there is no array \"subsystems\""},
        {"{", "Parse error: line 1, offset 1: Missing a name for object member."},
        {R"({"subsystems":[{"config":[]}]})",
         "Invalid parameters: configuration: {\"config\":[]} has no \"subsystem\""},
        {R"({"subsystems":[{"subsystem":"shelf","config":{}}]})",
         "Invalid parameters: configuration: \"config\" of shelf is no array"},
        {R"({"subsystems":[{"subsystem":"shelf","config":[{"params":{}}]}]})",
         "Invalid parameters: configuration: {\"params\":{}} is not a call: it has no \"method\""},
        {R"({"subsystems":[{"subsystem":"shelf","config":[{"method":"a","params":5}]}]})",
         "Invalid parameters: configuration: a: \"params\" is not an object"},
        {R"({"subsystems":[{"subsystem":"shelf","config":[{"method":"a","x":5}]}]})",
         "Invalid parameters: configuration: a: unknown member \"x\""},
        {R"({"subsystems":[{"subsystem":"shelf","config":[{"method":"thing_forget"}]}]})",
         "Method not found: thing_forget"},
        {R"({"subsystems":[{"subsystem":"shelf","config":[{"method":"thing_create","params":{"name":"a","size":0}}]}]})",
         "thing_create {\"name\":\"a\",\"size\":0}: Invalid parameters: size must be greater than 0, got 0"},
    };
    for (const auto& [text, message] : cases) {
        one_instance t;
        t.run([&](one_instance& self) -> task<> {
            auto config = read_config(text);
            result<> outcome = config ? co_await as_result(load_all(self.i, *config, false))
                                      : result<>(std::unexpected(config.error()));
            EXPECT_EQ(outcome ? "" : outcome.error().message(), message);
        });
    }
}

TEST(instance, errors_in_a_configuration_may_be_ignored) {
    one_instance t;
    t.run([](one_instance& self) -> task<> {
        const char* text = R"({"subsystems":[{"subsystem":"shelf","config":[{"method":"thing_forget"},
            {"method":"thing_create","params":{"name":""}},{"method":"thing_create","params":{}},
            {"method":"thing_create","params":{"name":"a"}}]}]})";
        co_await load_all(self.i, co_await read_config(text), true);
        EXPECT_EQ(self.things->things.size(), 2u);
    });
}

TEST(instance, scheduler) {
    one_instance t;
    t.run([](one_instance& self) -> task<> {
        const std::string before =
            R"({"scheduler_name":"static","scheduler_period":0,"isolated_core_mask":"0","scheduling_core":0})";
        EXPECT_EQ(co_await self.call("framework_get_scheduler"), before);
        EXPECT_EQ(json::write(saved_config(self.i)["subsystems"][0]["config"]),
                  R"([{"method":"framework_set_scheduler","params":{"name":"static"}}])");
        EXPECT_EQ(co_await self.call("framework_set_scheduler", R"({"name":"dynamic","core_busy":90})"), "true");
        EXPECT_EQ(
            co_await self.call("framework_get_scheduler"),
            R"({"scheduler_name":"dynamic","scheduler_period":1000000,"isolated_core_mask":"0","scheduling_core":0,)"
            R"("load_limit":20,"core_limit":80,"core_busy":90})");
        EXPECT_EQ(json::write(saved_config(self.i)["subsystems"][0]["config"]),
                  R"([{"method":"framework_set_scheduler","params":{"name":"dynamic","period":1000000,"load_limit":20,)"
                  R"("core_limit":80,"core_busy":90}}])");
        EXPECT_EQ(co_await self.call("framework_set_scheduler", R"({"name":"nope"})"),
                  "-32602 Invalid parameters: name must be one of static, dynamic, got the string \"nope\"");
        EXPECT_EQ(co_await self.call("scheduler_set_options", R"({"scheduling_core":1,"isolated_core_mask":"0x2"})"),
                  "-22 Invalid argument: scheduling_core must not be isolated");
    });
}

TEST(instance, about_itself) {
    one_instance t;
    t.run([](one_instance& self) -> task<> {
        EXPECT_TRUE((co_await self.call("rpc_get_methods")).find("\"thing_create\"") != std::string::npos);
        EXPECT_TRUE((co_await self.call("rpc_get_methods", R"({"current":true})")).find("\"thing_create\"") ==
                    std::string::npos);
        EXPECT_TRUE((co_await self.call("rpc_get_methods")).find("\"get_subsystems\"") == std::string::npos);
        EXPECT_TRUE((co_await self.call("rpc_get_methods", R"({"include_aliases":true})")).find("\"get_subsystems\"") !=
                    std::string::npos);
        EXPECT_TRUE((co_await self.call("spdk_get_version")).starts_with(R"({"version":"Varve v)"));
        EXPECT_EQ(
            co_await self.call("spdk_kill_instance", R"({"sig_name":"SIGFOO"})"),
            "-32602 Invalid parameters: sig_name must be one of SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGKILL, SIGUSR1, "
            "got \"SIGFOO\"");
        EXPECT_EQ(co_await self.call("log_set_flag", R"({"flag":"nope"})"), "-32602 invalid log flag: nope");
        EXPECT_EQ(co_await self.call("log_set_level", R"({"level":"DEBUG"})"), "true");
        EXPECT_EQ(co_await self.call("log_get_level"), "\"DEBUG\"");
        co_await self.i.start();
        auto reactors = co_await self.i.call("framework_get_reactors", {});
        EXPECT_EQ(reactors["pid"], json::value(42));
        EXPECT_EQ(reactors["reactors"][0]["lw_threads"][0]["name"], json::value("app_thread"));
        auto stats = co_await self.i.call("thread_get_stats", {});
        EXPECT_EQ(stats["threads"][0]["cpumask"], json::value("1"));
        EXPECT_EQ(co_await self.call("thread_set_cpumask", R"({"id":99,"cpumask":"1"})"),
                  "-32602 Thread 99 does not exist");
        EXPECT_EQ(co_await self.call("thread_set_cpumask", R"({"id":1,"cpumask":"0x4"})"),
                  "-32603 No CPU is selected from reactor mask 1");
        EXPECT_TRUE((co_await self.call("thread_set_cpumask", R"({"id":1,"cpumask":"zz"})"))
                        .starts_with("-32603 Invalid cpumask zz"));
        EXPECT_EQ(co_await self.call("thread_set_cpumask", R"({"id":1,"cpumask":"0x1"})"), "true");
        self.i.events().add("bdev_register", "Null0");
        self.i.events().add("bdev_register", "Null1");
        EXPECT_EQ(co_await self.call("notify_get_notifications", R"({"id":1})"),
                  R"([{"type":"bdev_register","ctx":"Null1","id":1}])");
        EXPECT_EQ(co_await self.call("notify_get_notifications", R"({"max":1})"),
                  R"([{"type":"bdev_register","ctx":"Null0","id":0}])");
    });
}

}  // namespace
}  // namespace varve::server
