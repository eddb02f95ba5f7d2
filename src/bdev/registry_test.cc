// Names, claims, events, examination: what the app thread sees of devices.
#include "bdev/registry.h"

#include <gtest/gtest.h>

#include <thread>

#include "bdev/layer.h"
#include "bdev/test_device.h"
#include "thread/awaits.h"

namespace varve::bdev {
namespace {

class registry_test : public thread::in_every_world {};

#define REGISTRY_TEST(name)               \
    task<> name(bdev_system& s);          \
    TEST_IN_WORLDS(registry_test, name) { \
        bdev_system s(GetParam());        \
        s.run(name(s));                   \
    }                                     \
    task<> name(bdev_system& s)

task<errc> code_of_adding(bdev_system& s, properties p) {
    result<ram_device*> added = co_await as_result(s.add(std::move(p)));
    co_return added ? errc::ok : added.error().code();
}

REGISTRY_TEST(finds_by_name_alias_and_uuid) {
    uuid id = *uuid::parse("11111111-2222-3333-4444-555555555555");
    ram_device* d = co_await s.add({.name = "a", .aliases = {"b", "c"}, .uuid = id, .num_blocks = 8});
    for (const char* name : {"a", "b", "c", "11111111-2222-3333-4444-555555555555"}) {
        EXPECT_EQ(s.devices.find(name), d) << name;
        EXPECT_EQ(co_await code_of_adding(s, {.name = name, .num_blocks = 8}), errc::exists) << name;
        EXPECT_EQ(co_await code_of_adding(s, {.name = "new", .aliases = {name}, .num_blocks = 8}), errc::exists);
    }
    EXPECT_EQ(co_await code_of_adding(s, {.name = "new", .uuid = id, .num_blocks = 8}), errc::exists);
    EXPECT_EQ(s.devices.find("new"), nullptr);
    EXPECT_EQ(co_await code_of_adding(s, {.name = "new", .num_blocks = 8}), errc::ok);
    EXPECT_FALSE(s.devices.find("new")->props().uuid.is_nil());
    EXPECT_EQ(s.devices.find("new")->props().aliases.size(), 1u);
    co_await s.devices.remove("c");
    for (const char* name : {"a", "b", "c", "11111111-2222-3333-4444-555555555555"}) {
        EXPECT_EQ(s.devices.find(name), nullptr) << name;
    }
}

REGISTRY_TEST(refuses_impossible_properties) {
    EXPECT_EQ(co_await code_of_adding(s, {.name = "a", .block_size = 0}), errc::invalid);
    EXPECT_EQ(co_await code_of_adding(s, {.name = "a", .alignment = 3}), errc::invalid);
    EXPECT_EQ(co_await code_of_adding(s, {.name = "a", .optimal_io_boundary = 3, .split_on_boundary = true}),
              errc::invalid);
    EXPECT_EQ(co_await code_of_adding(s, {.name = "a", .frames = max_frames}), errc::invalid);
    auto nameless = std::make_unique<ram_device>(properties{.num_blocks = 8});
    EXPECT_FALSE((co_await as_result(s.devices.add(std::move(nameless)))).has_value());
    EXPECT_EQ(co_await code_of_adding(s, {.name = "a", .num_blocks = 8}), errc::ok);
}

REGISTRY_TEST(aliases_come_and_go) {
    ram_device* d = co_await s.add({.name = "a", .num_blocks = 8});
    co_await s.devices.add_alias(*d, "b");
    EXPECT_EQ(s.devices.find("b"), d);
    EXPECT_EQ(s.devices.add_alias(*d, "a").error().code(), errc::exists);
    co_await s.devices.remove_alias(*d, "b");
    EXPECT_EQ(s.devices.find("b"), nullptr);
    EXPECT_EQ(s.devices.remove_alias(*d, "b").error().code(), errc::not_found);
}

// What may be done while a claim stands: open for reading, open for writing, and each claim on a read-only descriptor.
REGISTRY_TEST(claims) {
    using enum claim_type;
    struct expectation {
        claim_type held;
        bool writable_after;
        bool open_for_writing;
        std::array<bool, 4> further;  // exclusive, write_one, write_none, write_shared (same key)
    };
    const expectation table[] = {{exclusive_write, true, false, {false, false, false, false}},
                                 {read_many_write_one, true, false, {false, false, false, false}},
                                 {read_many_write_none, false, false, {false, false, true, false}},
                                 {read_many_write_shared, true, false, {false, false, false, true}}};
    ram_device* d = co_await s.add({.num_blocks = 8});
    for (const expectation& e : table) {
        descriptor holder = co_await s.open(*d, open_mode::read_only);
        uint64_t key = e.held == read_many_write_shared ? 7 : 0;
        co_await holder.claim(e.held, "test", key);
        EXPECT_EQ(holder.writable(), e.writable_after) << name_of(e.held);
        result<descriptor> writer = s.open(*d, open_mode::read_write);
        EXPECT_EQ(writer.has_value(), e.open_for_writing) << name_of(e.held);
        if (!writer) {
            EXPECT_EQ(writer.error().code(), errc::not_permitted);
        }
        for (unsigned i = 0; i < 4; ++i) {
            auto further = static_cast<claim_type>(i + 1);
            descriptor other = co_await s.open(*d, open_mode::read_only);
            result<> claimed = other.claim(further, "other", further == read_many_write_shared ? 7 : 0);
            EXPECT_EQ(claimed.has_value(), e.further[i]) << name_of(e.held) << " " << name_of(further);
        }
        descriptor other = co_await s.open(*d, open_mode::read_only);
        EXPECT_FALSE(other.claim(read_many_write_shared, "other", 8).has_value());  // another key
    }
    // Released with the descriptor.
    descriptor writer = co_await s.open(*d, open_mode::read_write);
    descriptor reader = co_await s.open(*d, open_mode::read_only);
    EXPECT_FALSE(reader.claim(read_many_write_one, "test").has_value());
    EXPECT_FALSE(reader.claim(read_many_write_none, "test").has_value());
    EXPECT_FALSE(writer.claim(read_many_write_none, "test").has_value());
    EXPECT_TRUE(writer.claim(read_many_write_one, "test").has_value());
}

REGISTRY_TEST(tells_everyone_once_whatever_handlers_do) {
    ram_device* d = co_await s.add({.num_blocks = 8});
    std::vector<descriptor> all(4);
    std::array<unsigned, 4> removed{}, resized{};
    for (unsigned i = 0; i < 4; ++i) {
        all[i] = co_await s.devices.open("ram", open_mode::read_only, [&, i](device_event e) {
            ++(e == device_event::removed ? removed : resized)[i];
            if (e == device_event::removed && i == 0) {  // closes itself and another
                all[0].close();
                all[2].close();
            }
            if (e == device_event::removed && i == 1) all[1].close();
        });
    }
    co_await s.devices.resize(*d, 16);
    EXPECT_EQ(resized, (std::array<unsigned, 4>{1, 1, 1, 1}));
    gate removal;
    removal.spawn(s.devices.remove("ram"), thread::unexpected);
    for (int i = 0; i < 10; ++i) co_await yield();
    EXPECT_EQ(removed, (std::array<unsigned, 4>{1, 1, 0, 1}));
    EXPECT_FALSE(s.open(*d).has_value());
    EXPECT_EQ((co_await as_result(s.devices.remove("ram"))).error().code(), errc::no_device);
    EXPECT_EQ(co_await code_of_adding(s, {.num_blocks = 8}), errc::exists);  // until it has gone
    all[3].close();
    co_await removal.close();
    EXPECT_EQ(co_await code_of_adding(s, {.num_blocks = 8}), errc::ok);
}

REGISTRY_TEST(removal_is_for_the_right_module) {
    co_await s.add({.num_blocks = 8});
    EXPECT_EQ((co_await as_result(s.devices.remove("ram", "malloc"))).error().code(), errc::no_device);
    EXPECT_EQ((co_await as_result(s.devices.remove("rom"))).error().code(), errc::no_device);
    co_await s.devices.remove("ram", "ram");
}

// A device that somebody still has open is not asked to go again and again: that would keep him from closing it.
REGISTRY_TEST(the_end_waits_for_a_removal_under_way) {
    co_await s.add({.num_blocks = 8});
    descriptor opened = *s.devices.open("ram", open_mode::read_only, {});
    gate both;
    both.spawn(s.devices.remove("ram"), [](const error&) { ADD_FAILURE(); });
    both.spawn(s.devices.remove_all(), [](const error&) { ADD_FAILURE(); });
    for (int i = 0; i < 5; ++i) co_await yield();
    EXPECT_EQ(s.devices.devices().size(), 1u);
    opened.close();
    co_await both.close();
    EXPECT_TRUE(s.devices.devices().empty());
}

REGISTRY_TEST(open_later_waits_for_the_name) {
    time_ns begin = thread::here().now();
    result<descriptor> never =
        co_await as_result(s.devices.open_later("ram", open_mode::read_only, {}, 5 * milliseconds));
    EXPECT_EQ(never.error().code(), errc::timed_out);
    EXPECT_GE(thread::here().now() - begin, 5 * milliseconds);
    gate tasks;
    bool opened = false;
    auto waits = [](bdev_system& in, bool& done) -> task<> {
        descriptor d = co_await in.devices.open_later("alias", open_mode::read_only, {}, 60 * seconds);
        done = true;
        EXPECT_EQ(d->name(), "ram");
    };
    tasks.spawn(waits(s, opened), thread::unexpected);
    tasks.spawn(waits(s, opened), thread::unexpected);
    co_await s.add({.name = "other", .num_blocks = 8});
    co_await yield();
    EXPECT_FALSE(opened);
    co_await s.add({.name = "ram", .aliases = {"alias"}, .num_blocks = 8});
    co_await tasks.close();
    EXPECT_TRUE(opened);
}

REGISTRY_TEST(examiners_see_every_device_until_it_is_claimed) {
    std::vector<std::string> seen;
    event go_on;
    auto look = [](std::vector<std::string>& log, event& wait, const char* who, device& d) -> task<> {
        log.push_back(who + d.name());
        co_await wait.wait();
        if (d.name() == "bad") co_await fail(errc::io, "unreadable");
    };
    s.devices.add_examiner("one", [&](device& d) { return look(seen, go_on, "1", d); });
    s.devices.add_examiner("two", [&](device& d) { return look(seen, go_on, "2", d); });
    co_await s.add({.name = "good", .num_blocks = 8});
    co_await s.add({.name = "bad", .num_blocks = 8});
    EXPECT_EQ(seen, (std::vector<std::string>{"1good", "1bad"}));
    gate tasks;
    tasks.spawn(s.devices.wait_for_examine(), thread::unexpected);
    tasks.spawn(s.devices.remove("good"), thread::unexpected);
    co_await yield();
    EXPECT_EQ(tasks.inside(), 2u);  // a device stays while somebody looks at it
    go_on.set();
    co_await tasks.close();
    EXPECT_EQ(seen, (std::vector<std::string>{"1good", "1bad", "2bad"}));
    EXPECT_EQ((co_await as_result(s.devices.examine("bad"))).error().code(), errc::invalid);
    s.devices.set_auto_examine(false);
    co_await s.add({.name = "late", .num_blocks = 8});
    EXPECT_EQ(seen.size(), 3u);
    co_await s.devices.examine("late");
    co_await s.devices.wait_for_examine();
    EXPECT_EQ(seen.size(), 5u);
    EXPECT_EQ((co_await as_result(s.devices.examine("late"))).error().code(), errc::exists);
    co_await s.devices.examine("later");  // there is none yet
    EXPECT_EQ(s.devices.to_examine(), (std::vector<std::string>{"late", "later"}));
    co_await s.add({.name = "other", .num_blocks = 8});
    co_await s.add({.name = "by alias", .aliases = {"later"}, .num_blocks = 8});
    co_await s.devices.wait_for_examine();
    EXPECT_EQ(seen.size(), 7u);
    EXPECT_EQ(seen.back(), "2by alias");
    co_await s.devices.remove("by alias");
    EXPECT_EQ(s.devices.to_examine(), (std::vector<std::string>{"late"}));
}

// --- layers

class plain_channel final : public channel {
  public:
    explicit plain_channel(channel_ref base) : _base(std::move(base)) {}

  private:
    void do_submit(io& r) noexcept override { _base->submit(r); }
    bool do_abort(io& r) noexcept override { return _base->abort(r); }
    channel_ref _base;
};
class plain_layer final : public layer {
  public:
    using layer::layer;
    std::string_view module_name() const noexcept override { return "plain"; }
    std::unique_ptr<channel> open_channel() override { return std::make_unique<plain_channel>(base_channel()); }
};
task<> put_on(bdev_system& s, std::string base, std::string name) {
    base_link link = co_await base_link::open(s.devices, base, "plain");
    properties p = layered_on(*link, name, "plain");
    co_await s.devices.add(std::make_unique<plain_layer>(std::move(p), s.devices, std::move(link)));
}

REGISTRY_TEST(layers_pass_everything_on) {
    ram_device* d = co_await s.add({.num_blocks = 1024, .alignment = 64, .max_blocks = 4});
    co_await put_on(s, "ram", "layer1");
    co_await put_on(s, "layer1", "layer2");
    EXPECT_EQ((co_await as_result(put_on(s, "ram", "layer3"))).error().code(), errc::not_permitted);
    descriptor opened = co_await s.devices.open("layer2", open_mode::read_write, {});
    channel_ref c = opened.channel();
    auto out = pattern(512 * 33 + 1, 1);
    std::span<std::byte> unaligned(out.data() + 1, 512 * 33);
    co_await write(*c, 5, unaligned);
    EXPECT_EQ(std::memcmp(d->blocks.data() + 5 * 512, unaligned.data(), unaligned.size()), 0);
    co_await compare(*c, 5, unaligned);
    co_await copy(*c, 5, 100, 33);
    co_await compare(*c, 100, unaligned);
    co_await compare_and_write(*c, 100, unaligned, unaligned);
    co_await unmap(*c, 100, 33);
    EXPECT_EQ(std::to_integer<int>(d->blocks[100 * 512]), 0);
    co_await flush(*c);
    co_await reset(*c);
    EXPECT_EQ(d->resets, 1u);
    EXPECT_TRUE(s.devices.find("layer2")->supports(op::compare_and_write));
    EXPECT_FALSE(s.devices.find("layer2")->offers(op::compare));
}

REGISTRY_TEST(layers_grow_and_go_with_their_base) {
    ram_device* d = co_await s.add({.num_blocks = 8});
    co_await put_on(s, "ram", "layer1");
    co_await put_on(s, "layer1", "layer2");
    d->blocks.resize(16 * 512);
    co_await s.devices.resize(*d, 16);
    for (int i = 0; i < 20; ++i) co_await yield();
    EXPECT_EQ(s.devices.find("layer2")->num_blocks(), 16u);
    descriptor opened;
    opened = co_await s.devices.open("layer2", open_mode::read_write, [&](device_event e) {
        if (e == device_event::removed) opened.close();
    });
    {
        channel_ref c = opened.channel();
    }
    co_await s.devices.remove("ram");
    EXPECT_TRUE(s.devices.devices().empty());
    EXPECT_FALSE(opened);
}

REGISTRY_TEST(a_tower_ends_where_frames_end) {
    co_await s.add({.num_blocks = 8});
    std::string top = "ram";
    unsigned height = 1;
    for (;; ++height) {
        std::string name = "layer" + std::to_string(height);
        if (!(co_await as_result(put_on(s, top, name)))) break;
        top = name;
    }
    EXPECT_EQ(height, max_frames - 1);
    descriptor opened = co_await s.devices.open(top, open_mode::read_write, {});
    channel_ref c = opened.channel();
    std::vector<std::byte> memory(4096);
    co_await write(*c, 0, memory);
}

// Two systems in one process know nothing of each other.
TEST_P(registry_test, two_systems_side_by_side) {
    bdev_system a(GetParam()), b(GetParam());
    auto body = [](bdev_system& s, unsigned seed) -> task<> {
        ram_device* d = co_await s.add({.num_blocks = 8});
        descriptor opened = co_await s.open(*d);
        channel_ref c = opened.channel();
        auto out = pattern(4096, seed);
        co_await write(*c, 0, out);
        EXPECT_EQ(std::memcmp(d->blocks.data(), out.data(), out.size()), 0);
    };
    std::thread other([&] { b.run(body(b, 2)); });
    a.run(body(a, 1));
    other.join();
}

INSTANTIATE_TEST_SUITE_P(worlds, registry_test, thread::every_world(), thread::world_name);

}  // namespace
}  // namespace varve::bdev
