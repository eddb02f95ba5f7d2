// The host against a target that behaves, in all the ways the specification leaves a target to choose.
#include "nvme/host/controller.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "nvme/host/discovery.h"
#include "nvme/host/fake_target.h"
#include "nvme/host/test_host.h"
#include "nvme/text.h"
#include "thread/awaits.h"

namespace varve::nvme::host {
namespace {

class nvme_controller : public nvme_host {};
INSTANTIATE_TEST_SUITE_P(worlds, nvme_controller, thread::every_world(), thread::world_name);

std::vector<std::byte> pattern(std::size_t size, uint32_t seed) {
    std::vector<std::byte> bytes(size);
    for (auto& b : bytes) b = static_cast<std::byte>((seed = seed * 1664525 + 1013904223) >> 24);
    return bytes;
}

task<> connects(thread::runtime&) {
    fake_target target(here().loop(), {});
    target.namespaces[1] = {.bytes = std::string(1 << 20, 'a'), .block_shift = 9};
    target.namespaces[5] = {.bytes = std::string(1 << 20, 'b'), .block_shift = 12};
    auto c = co_await controller::connect(options_for(target));
    EXPECT_EQ(c->id(), 7);
    EXPECT_EQ(c->io_queues(), 8);
    EXPECT_EQ(c->transfer_max(), 131072u);
    ASSERT_EQ_CO(c->namespaces().size(), 2u);
    const ns& first = c->namespaces()[0];
    EXPECT_EQ(first.nsid, 1u);
    EXPECT_EQ(first.block_size, 512u);
    EXPECT_EQ(first.blocks, 2048u);
    EXPECT_EQ(first.uuid.to_string(), "01010101-0101-0101-0101-010101010101");
    EXPECT_EQ(c->find(5)->block_size, 4096u);
    EXPECT_EQ(c->find(2), nullptr);
    co_await c->disconnect();
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_controller, connects_and_lists_namespaces) { run(GetParam(), connects); }

// Everything there is, through one queue.
task<> works(thread::runtime&, fake_options how, tcp_options wanted) {
    fake_target target(here().loop(), how);
    target.namespaces[1] = {.bytes = std::string(4 << 20, 'a'), .block_shift = 9};
    auto options = options_for(target);
    options.tcp = wanted;
    auto c = co_await controller::connect(options);
    auto q = co_await c->open_queue();
    const ns disk = *c->find(1);
    for (std::size_t size : {512u, 4096u, 8192u, 65536u, 1u << 20}) {
        const auto data = pattern(size, static_cast<uint32_t>(size));
        std::vector<std::byte> back(size);
        co_await disk.write(*q, 3, data);
        EXPECT_EQ(std::memcmp(target.namespaces[1].bytes.data() + 3 * 512, data.data(), size), 0);
        co_await disk.read(*q, 3, back);
        EXPECT_TRUE(back == data);
        co_await disk.compare(*q, 3, data);
        back[size - 1] ^= std::byte{1};
        auto differs = co_await as_result(disk.compare(*q, 3, back));
        EXPECT_EQ(differs.error().code(), errc::bad_sequence) << differs.error().message();
    }
    co_await disk.flush(*q);
    co_await disk.write_zeroes(*q, 3, 2);
    EXPECT_EQ(target.namespaces[1].bytes.substr(3 * 512, 1024), std::string(1024, 0));
    const dsm_range ranges[] = {{.attributes = 0, .blocks = 1, .slba = 9}, {.attributes = 0, .blocks = 2, .slba = 20}};
    co_await disk.deallocate(*q, ranges);
    EXPECT_EQ(target.namespaces[1].bytes.substr(20 * 512, 1024), std::string(1024, 0));
    EXPECT_NE(target.namespaces[1].bytes.substr(22 * 512, 512), std::string(512, 0));

    const auto old = pattern(512, 1), fresh = pattern(512, 2);
    co_await disk.write(*q, 100, old);
    co_await disk.compare_and_write(*q, 100, old, fresh);
    EXPECT_EQ(std::memcmp(target.namespaces[1].bytes.data() + 100 * 512, fresh.data(), 512), 0);
    auto again = co_await as_result(disk.compare_and_write(*q, 100, old, old));
    EXPECT_EQ(again.error().code(), errc::bad_sequence);
    EXPECT_EQ(std::memcmp(target.namespaces[1].bytes.data() + 100 * 512, fresh.data(), 512), 0);

    auto beyond = co_await as_result(disk.read(*q, disk.blocks, std::span<std::byte>{}));
    EXPECT_TRUE(beyond);  // nothing at all
    std::vector<std::byte> one(512);
    beyond = co_await as_result(disk.read(*q, disk.blocks, one));
    EXPECT_EQ(beyond.error().code(), errc::range);
    EXPECT_EQ(beyond.error().message(),
              std::string(text_of(errc::range)) + ": read of 1 blocks at 8192: LBA out of range (0/80h)");
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    EXPECT_EQ(target.seen["term"], 0);
    co_await target.stop();
}

TEST_P(nvme_controller, plain) {
    run(GetParam(), [](thread::runtime& rt) { return works(rt, {}, {}); });
}
TEST_P(nvme_controller, with_digests) {
    for (bool header : {false, true})
        for (bool data : {false, true})
            run(GetParam(), [=](thread::runtime& rt) {
                return works(rt, {.cpda = 3}, {.header_digest = header, .data_digest = data});
            });
}
TEST_P(nvme_controller, digests_that_the_target_refuses) {
    run(GetParam(), [](thread::runtime& rt) {
        return works(rt, {.header_digest = false, .data_digest = false}, {.header_digest = true, .data_digest = true});
    });
}
TEST_P(nvme_controller, with_success_flag_and_small_pieces) {
    run(GetParam(), [](thread::runtime& rt) {
        return works(
            rt, {.extra_padding = 12, .maxh2cdata = 4096, .success_flag = true, .r2t_max = 10240, .c2h_max = 1536}, {});
    });
    run(GetParam(), [](thread::runtime& rt) {
        return works(rt, {.cpda = 31, .maxh2cdata = 4096, .success_flag = true, .r2t_max = 4096, .c2h_max = 700},
                     {.header_digest = true, .data_digest = true});
    });
}
TEST_P(nvme_controller, without_data_in_capsules) {
    run(GetParam(), [](thread::runtime& rt) { return works(rt, {.in_capsule = 0}, {}); });
}
TEST_P(nvme_controller, with_much_data_in_capsules) {
    run(GetParam(), [](thread::runtime& rt) { return works(rt, {.in_capsule = 1 << 20}, {.data_digest = true}); });
}

// More requests than the queue takes, each submitting the next from its completion.
struct storm {
    struct one : request {
        storm* owner;
        std::vector<std::byte> memory;
        uint64_t lba;
        bool writes;
    };
    queue_pair& q;
    ns disk;
    unsigned left, running = 0, failures = 0, done = 0;
    std::vector<std::unique_ptr<one>> all;
    event over;

    void go(one& r) {
        r.command = block_command(r.writes ? nvm_opcode::write : nvm_opcode::read, disk.nsid, r.lba, 8);
        r.set_data(r.memory);
        --left;
        ++running;
        q.submit(r);
    }
    void start(unsigned count) {
        for (unsigned i = 0; i < count; ++i) {
            one& r = *all.emplace_back(std::make_unique<one>());
            r.owner = this;
            r.lba = i * 8;
            r.writes = i % 3 == 0;
            r.memory = pattern(4096, i);
            r.done = [](request& finished) noexcept {
                one& mine = static_cast<one&>(finished);
                storm& s = *mine.owner;
                --s.running;
                ++s.done;
                if (!mine.ok()) ++s.failures;
                if (s.left != 0) s.go(mine);
                if (s.running == 0) s.over.set();
            };
            go(r);
        }
    }
};

task<> many(thread::runtime&, uint32_t in_capsule) {
    fake_target target(here().loop(), {.in_capsule = in_capsule});
    target.namespaces[1] = {.bytes = std::string(4 << 20, 'a'), .block_shift = 9};
    auto options = options_for(target);
    options.io_queue_entries = 33;
    auto c = co_await controller::connect(options);
    auto q = co_await c->open_queue();
    storm s{.q = *q, .disk = *c->find(1), .left = 5'000};
    s.start(300);
    co_await s.over.wait();
    EXPECT_EQ(s.done, 5'000u);
    EXPECT_EQ(s.failures, 0u);
    for (auto& r : s.all) {
        const auto at = r->lba * 512;
        if (r->writes) {
            EXPECT_TRUE(r->memory == pattern(4096, static_cast<uint32_t>(r->lba / 8)));
        }
        EXPECT_EQ(std::memcmp(target.namespaces[1].bytes.data() + at, r->memory.data(), 4096), 0);
    }
    EXPECT_EQ(q->under_way(), 0u);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    co_await target.stop();
}
TEST_P(nvme_controller, queues_what_does_not_fit) {
    run(GetParam(), [](thread::runtime& rt) { return many(rt, 4096); });
    run(GetParam(), [](thread::runtime& rt) { return many(rt, 0); });
}

task<> scattered(thread::runtime&, uint32_t in_capsule) {
    fake_target target(here().loop(), {.in_capsule = in_capsule, .mdts = 8});
    target.namespaces[1] = {.bytes = std::string(4 << 20, 'a'), .block_shift = 9};
    auto c = co_await controller::connect(options_for(target));
    auto q = co_await c->open_queue();
    auto data = pattern(512 * 600, 9);
    std::vector<iovec> pieces;
    for (std::size_t at = 0, n = 0; at < data.size(); at += n, n = (n + 7) % 1500) {
        n = std::min(n, data.size() - at);
        pieces.push_back({data.data() + at, n});
    }
    EXPECT_GT(pieces.size(), 300u);
    request r;
    r.command = block_command(nvm_opcode::write, 1, 0, 600);
    r.iov = pieces.data();
    r.iov_count = static_cast<uint32_t>(pieces.size());
    r.length = static_cast<uint32_t>(data.size());
    co_await execute(*q, r);
    EXPECT_TRUE(r.ok()) << describe(r.code());
    EXPECT_EQ(std::memcmp(target.namespaces[1].bytes.data(), data.data(), data.size()), 0);
    std::ranges::fill(data, std::byte{0});
    r.command = block_command(nvm_opcode::read, 1, 0, 600);
    co_await execute(*q, r);
    EXPECT_TRUE(r.ok()) << describe(r.code());
    EXPECT_EQ(r.transferred, data.size());
    EXPECT_EQ(std::memcmp(target.namespaces[1].bytes.data(), data.data(), data.size()), 0);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    co_await target.stop();
}
TEST_P(nvme_controller, scattered_memory) {
    run(GetParam(), [](thread::runtime& rt) { return scattered(rt, 4096); });
    run(GetParam(), [](thread::runtime& rt) { return scattered(rt, 1 << 20); });
}

task<> events(thread::runtime&) {
    fake_target target(here().loop(), {});
    target.namespaces[1] = {.bytes = std::string(1 << 20, 'a'), .block_shift = 9};
    auto c = co_await controller::connect(options_for(target));
    event changed;
    c->on_namespaces_changed([&] { changed.set(); });
    std::vector<async_event> seen;
    c->on_event([&](async_event e) { seen.push_back(e); });
    const async_event notice{event_type::notice, event_info::notice_namespace_changed,
                             raw(log_page::changed_namespaces)};
    for (int round = 0; round < 6; ++round) {  // more than there are event requests
        target.namespaces[2] = {.bytes = std::string(static_cast<std::size_t>(round + 1) << 20, 'b'), .block_shift = 9};
        target.changed = {2};
        target.raise(notice);
        co_await changed.wait();
        changed.reset();
        EXPECT_EQ(c->find(2)->blocks, static_cast<uint64_t>(round + 1) * 2048);
    }
    target.namespaces.erase(1);
    target.changed = {1};
    target.raise(notice);
    co_await changed.wait();
    EXPECT_EQ(c->find(1), nullptr);
    while (seen.size() < 7) co_await sleep(20 * microseconds);
    EXPECT_EQ(seen.front(), notice);
    co_await c->disconnect();
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_controller, follows_namespace_changes) { run(GetParam(), events); }

task<> keeps_alive(thread::runtime&) {
    fake_target target(here().loop(), {});
    auto options = options_for(target);
    options.keep_alive_ms = 20;
    auto c = co_await controller::connect(options);
    while (target.seen["keep alive"] < 3) co_await sleep(milliseconds);
    EXPECT_FALSE(c->lost());
    // Now it stops to answer them: the connection is given up.
    target.on_command = [](fake_connection&, const sqe& one, const std::string&) {
        return one.opcode == raw(admin_opcode::keep_alive);
    };
    event lost;
    std::string why;
    c->on_lost([&](const error& e) {
        why = e.message();
        lost.set();
    });
    auto q = co_await c->open_queue();
    co_await lost.wait();
    EXPECT_EQ(why, "the keep-alive was not answered");
    while (q->ready()) co_await sleep(20 * microseconds);  // the I/O queue goes with it
    EXPECT_EQ((co_await as_result(c->open_queue())).error().code(), errc::not_connected);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    co_await target.stop();
}
TEST_P(nvme_controller, keeps_alive_and_gives_up) { run(GetParam(), keeps_alive); }

task<> queue_of_another_thread(thread::runtime& rt) {
    fake_target target(here().loop(), {.queues = 2});
    target.namespaces[1] = {.bytes = std::string(1 << 20, 'a'), .block_shift = 9};
    auto c = co_await controller::connect(options_for(target));
    thread::thread& home = here();
    auto other = co_await rt.create_thread("other");
    std::vector<std::unique_ptr<queue_pair>> queues;
    co_await switch_to(*other);
    for (int i = 0; i < 2; ++i) queues.push_back(co_await c->open_queue());
    EXPECT_EQ((co_await as_result(c->open_queue())).error().code(), errc::busy);
    std::vector<std::byte> block(512);
    for (auto& q : queues) co_await c->find(1)->read(*q, 0, block);
    EXPECT_EQ(block[511], std::byte{'a'});
    co_await c->close_queue(std::move(queues.back()));
    queues.back() = co_await c->open_queue();  // its number is free again
    for (auto& q : queues) co_await c->close_queue(std::move(q));
    co_await switch_to(home);
    rt.destroy_thread(*other);
    co_await c->disconnect();
    co_await target.stop();
}
TEST_P(nvme_controller, queues_belong_to_the_thread_that_opens_them) {
    for (unsigned cpus : {1u, 2u}) run(GetParam(), queue_of_another_thread, cpus);
}

task<> passes_through(thread::runtime&) {
    fake_target target(here().loop(), {});
    auto c = co_await controller::connect(options_for(target));
    const cqe unknown = co_await c->admin(plain_admin_command(admin_opcode::sanitize));
    EXPECT_EQ(unknown.code(), status::invalid_opcode);
    auto failed = co_await as_result(c->ask(plain_admin_command(admin_opcode::sanitize), {}, "sanitizing"));
    EXPECT_EQ(failed.error().message(),
              std::string(text_of(errc::unsupported)) + ": sanitizing: invalid opcode (0/01h)");
    co_await c->disconnect();
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_controller, passes_admin_commands_through) { run(GetParam(), passes_through); }

task<> discovers(thread::runtime&) {
    fake_target target(here().loop(), {.mdts = 1});
    for (int i = 0; i < 20; ++i) {
        discovery_entry e{};
        e.trtype = raw(transport_type::tcp);
        e.portid = static_cast<uint16_t>(i);
        target.discovery.push_back(e);
    }
    // The log changes once while it is being read.
    int headers = 0;
    target.on_command = [&](fake_connection&, const sqe& one, const std::string&) {
        if (one.opcode == raw(admin_opcode::get_log_page) && log_request::decode(one).offset == 0 && ++headers == 2)
            ++target.discovery_generation;
        return false;
    };
    auto options = options_for(target);
    const discovery_log log = co_await discover(options);
    EXPECT_EQ(log.generation, 2u);
    EXPECT_EQ(headers, 4);
    ASSERT_EQ_CO(log.entries.size(), 20u);
    EXPECT_EQ(log.entries[19].portid, 19);
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_controller, reads_the_discovery_log) { run(GetParam(), discovers); }

}  // namespace
}  // namespace varve::nvme::host
