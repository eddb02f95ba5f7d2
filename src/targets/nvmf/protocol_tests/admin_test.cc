// The admin command set: what is granted, kept over resets, told and called back.
#include <gtest/gtest.h>

#include <algorithm>

#include "nvme/identify.h"
#include "targets/nvmf/protocol_tests/test_host.h"

namespace varve::targets::nvmf::protocol_tests {
namespace {

using nvme::admin_opcode;
using nvme::feature;
using nvme::status;

nvme::sqe get_feature(feature f, nvme::feature_select select = nvme::feature_select::current) {
    return admin_command(admin_opcode::get_features, 0, nvme::raw(f) | static_cast<uint32_t>(select) << 8);
}
nvme::sqe set_feature(feature f, uint32_t value) {
    return admin_command(admin_opcode::set_features, 0, nvme::raw(f), value);
}
nvme::sqe identify(nvme::cns what, uint32_t nsid = 0) {
    nvme::sqe c = admin_command(admin_opcode::identify, 4096, nvme::raw(what));
    c.nsid = nsid;
    return c;
}
nvme::sqe abort(uint16_t queue, uint16_t cid) {
    return admin_command(admin_opcode::abort, 0, static_cast<uint32_t>(queue) | static_cast<uint32_t>(cid) << 16);
}
nvme::sqe event_request() { return admin_command(admin_opcode::async_event_request); }

// --- keep-alive

task<> rounds_keep_alive(test_target& t) {
    struct {
        uint32_t asked, granted;
    } const cases[] = {{1, 700},     {700, 700},   {701, 1000},
                       {1000, 1000}, {1234, 1500}, {UINT32_MAX, UINT32_MAX / 500 * 500}};
    (void)t;
    for (auto [asked, granted] : cases) {
        uint32_t expected = asked <= 700 ? 1000 : granted;  // 700 is no multiple of KAS
        test_host h(t);
        co_await h.connect({.keep_alive_ms = asked});
        auto id = read_as<nvme::identify_controller>((co_await h.command(identify(nvme::cns::controller))).data);
        EXPECT_EQ(id.kas, 5u);
        EXPECT_EQ((co_await h.command(get_feature(feature::keep_alive_timer))).dw0(), expected);
        reply r = co_await h.command(set_feature(feature::keep_alive_timer, asked + (asked == UINT32_MAX ? 0 : 500)));
        EXPECT_EQ(r.dw0() % 500, 0u);
        EXPECT_EQ(r.dw0(), (co_await h.command(get_feature(feature::keep_alive_timer))).dw0());
        EXPECT_EQ(co_await h.status_of(set_feature(feature::keep_alive_timer, 0)), status::keep_alive_invalid);
        h.line.end();
        co_await h.until_closed();
    }
}
TEST(nvmf_admin, rounds_keep_alive_up) {
    test_target({.transport = {.kas = 5, .min_kato = 700}}).run(rounds_keep_alive);
}

task<> enforces_keep_alive(test_target& t) {
    test_host h(t);
    co_await h.connect({.keep_alive_ms = 10'001});
    for (int i = 0; i < 5; ++i) {
        co_await sleep(19 * seconds);
        EXPECT_EQ(co_await h.status_of(admin_command(admin_opcode::keep_alive)), status::success);
    }
    co_await sleep(41 * seconds);
    EXPECT_TRUE(h.line.over);
}
TEST(nvmf_admin, enforces_keep_alive) { test_target().run(enforces_keep_alive); }

// A controller that is reset or shut down waits for its host two minutes, however short the interval.
task<> keeps_associations(test_target& t) {
    for (uint32_t configuration : {0u, enabled_configuration | 1u << 14}) {
        test_host h(t);
        co_await h.connect({.keep_alive_ms = 1000});
        co_await h.command(property_set(nvme::property::cc, configuration));
        co_await sleep(119 * seconds);
        EXPECT_FALSE(h.line.over);
        co_await sleep(2 * seconds);
        EXPECT_TRUE(h.line.over);
    }
}
TEST(nvmf_admin, keeps_associations) { test_target().run(keeps_associations); }

// --- configuration

// The reset has to wait for the queue: the enabling that follows must not overtake it.
task<> configures_in_order(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    t.disk->hold = true;
    q.submit(read_command(1, 0, 1));
    co_await until([&] { return !t.disk->held.empty(); }, "a read at the disk");
    uint16_t off = h.submit(property_set(nvme::property::cc, 0));
    uint16_t on = h.submit(property_set(nvme::property::cc, enabled_configuration));
    co_await sleep(5 * milliseconds);
    EXPECT_EQ(h.line.from_target, "");
    t.disk->let_go();
    EXPECT_EQ((co_await h.next_reply()).cid(), off);
    EXPECT_EQ((co_await h.next_reply()).cid(), on);
    EXPECT_EQ((co_await h.command(property_get(nvme::property::csts))).dw0(), nvme::csts::ready);
    test_host again(t);
    co_await again.connect_io(h.controller_id);
    EXPECT_EQ(co_await again.status_of(read_command(1, 0, 1)), status::success);
}
TEST(nvmf_admin, configures_in_order) { test_target().run(configures_in_order); }

task<> resets_features(test_target& t) {
    test_host h(t);
    co_await h.connect({.keep_alive_ms = 20'000});
    const feature plain[] = {feature::arbitration, feature::temperature_threshold, feature::error_recovery,
                             feature::write_atomicity, feature::async_event_config};
    auto config = co_await h.command(get_feature(feature::async_event_config));
    EXPECT_EQ(config.dw0(), nvme::event_mask::namespace_attribute);
    for (feature f : plain) {
        EXPECT_EQ(co_await h.status_of(set_feature(f, 1)), status::success);
        EXPECT_EQ((co_await h.command(get_feature(f))).dw0(), 1u);
    }
    nvme::sqe behaviour = set_feature(feature::host_behavior, 0);
    behaviour.dptr = nvme::sgl_descriptor::in_capsule(512);
    EXPECT_EQ(co_await h.status_of(behaviour, std::string(1, '\1') + std::string(511, '\0')), status::success);
    EXPECT_EQ((co_await h.command(set_feature(feature::keep_alive_timer, 40'000))).dw0(), 40'000u);
    EXPECT_EQ(co_await h.status_of(admin_command(admin_opcode::security_receive)), status::invalid_opcode);
    uint16_t event = h.submit(event_request());
    co_await h.command(property_set(nvme::property::cc, 0));
    EXPECT_EQ((co_await h.reply_to(event)).code(), status::aborted_by_request);
    co_await h.command(property_set(nvme::property::cc, enabled_configuration));
    for (feature f : plain) {
        uint32_t initial = (co_await h.command(get_feature(f, nvme::feature_select::initial))).dw0();
        EXPECT_EQ(initial, f == feature::async_event_config ? nvme::event_mask::namespace_attribute : 0u);
        EXPECT_EQ((co_await h.command(get_feature(f))).dw0(), initial);
    }
    nvme::sqe asked = get_feature(feature::host_behavior);
    asked.dptr = nvme::sgl_descriptor::by_transport(512);
    EXPECT_EQ((co_await h.command(asked)).data, std::string(512, '\0'));
    EXPECT_EQ((co_await h.command(get_feature(feature::keep_alive_timer))).dw0(), 20'000u);
    reply log = co_await h.command(log_command(nvme::log_page::error_information, 64));
    EXPECT_EQ(log.data, std::string(64, '\0'));
    nvme::sqe host = admin_command(admin_opcode::get_features, 16, nvme::raw(feature::host_identifier), 1);
    EXPECT_EQ((co_await h.command(host)).data[0], '\7');  // it is Connect's
}
TEST(nvmf_admin, resets_features) { test_target().run(resets_features); }

// --- Abort

task<> aborts_at_the_device(test_target& t) {
    test_host h(t), q(t, t.options.cpus - 1);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    t.disk->hold = t.disk->abortable = true;
    uint16_t first = q.submit(read_command(1, 0, 1)), second = q.submit(read_command(1, 8, 1));
    co_await until([&] { return t.disk->held.size() == 2; }, "reads at the disk");
    EXPECT_EQ((co_await h.command(abort(1, 77))).dw0(), 1u);      // no such command
    EXPECT_EQ((co_await h.command(abort(2, second))).dw0(), 1u);  // no such queue
    reply done = co_await h.command(abort(1, second));
    EXPECT_EQ(done.code(), status::success);
    EXPECT_EQ(done.dw0(), 0u);
    reply r = co_await q.next_reply();
    EXPECT_EQ(r.cid(), second);
    EXPECT_EQ(r.code(), status::aborted_by_request);
    EXPECT_FALSE(r.completion.dnr());
    t.disk->abortable = false;  // it cannot be had
    EXPECT_EQ((co_await h.command(abort(1, first))).dw0(), 1u);
    t.disk->let_go();
    EXPECT_EQ((co_await q.reply_to(first)).code(), status::success);
    uint16_t event = h.submit(event_request());
    EXPECT_EQ((co_await h.command(abort(0, event))).dw0(), 0u);
    EXPECT_EQ((co_await h.reply_to(event)).code(), status::aborted_by_request);
}
TEST(nvmf_admin, aborts_at_the_device) { test_target().run(aborts_at_the_device); }
TEST(nvmf_admin, aborts_at_the_device_of_another_reactor) { test_target({.cpus = 2}).run(aborts_at_the_device); }

// The data that was asked for has to come first.
task<> aborts_writes(test_target& t) {
    test_host h(t), q(t);
    co_await h.connect();
    co_await q.connect_io(h.controller_id);
    q.answer_r2t = false;
    for (bool in_time : {true, false}) {
        uint16_t write = q.submit(write_command(1, 0, 8, false), pattern(4096, 1));
        auto asked = read_as<tcp::r2t>(co_await q.receive());
        uint16_t command = h.submit(abort(1, write));
        co_await sleep((in_time ? 500 : 1500) * milliseconds);
        EXPECT_EQ(h.line.from_target.empty(), in_time);
        q.answer(asked);
        EXPECT_EQ((co_await q.reply_to(write)).code(), status::aborted_by_request);
        EXPECT_EQ((co_await h.reply_to(command)).dw0(), in_time ? 0u : 1u);
    }
    EXPECT_TRUE(t.disk->seen.empty());
}
TEST(nvmf_admin, aborts_writes_when_their_data_is_here) { test_target().run(aborts_writes); }

// --- log pages and events

task<> refuses_offsets(test_target& t) {
    test_host h(t);
    co_await h.connect();
    struct {
        nvme::log_page page;
        uint64_t size;
    } const pages[] = {{nvme::log_page::supported, 1024},
                       {nvme::log_page::error_information, 64 * 128},
                       {nvme::log_page::health, 512},
                       {nvme::log_page::firmware_slot, 512},
                       {nvme::log_page::changed_namespaces, 4096},
                       {nvme::log_page::command_effects, 4096}};
    for (auto [page, size] : pages) {
        for (uint64_t offset : {uint64_t{0}, size - 4, size, size + 4, UINT64_MAX - 3}) {
            nvme::sqe c = log_command(page, 8);
            nvme::log_request{.id = page, .length = 8, .offset = offset}.encode(c);
            reply r = co_await h.command(c);
            EXPECT_EQ(r.code(), offset > size ? status::invalid_field : status::success) << offset;
        }
    }
}
TEST(nvmf_admin, refuses_offsets_past_log_pages) { test_target().run(refuses_offsets); }

task<> forgets_what_was_read(test_target& t) {
    test_host h(t);
    co_await h.connect();
    co_await t.cnode1->remove_namespace(1);
    co_await sleep(1 * milliseconds);
    // The notice waits, and goes when its page is read, unless that is to retain it.
    for (bool retain : {true, false}) {
        reply log = co_await h.command(log_command(nvme::log_page::changed_namespaces, 4096, retain));
        EXPECT_EQ(read_as<le32>(log.data), 1u);
    }
    uint16_t event = h.submit(event_request());
    co_await sleep(1 * milliseconds);
    EXPECT_EQ(h.line.from_target, "");
    co_await t.cnode1->add_namespace({.nsid = 1, .bdev_name = "disk"});
    reply r = co_await h.reply_to(event);
    EXPECT_EQ(nvme::async_event::decode(r.dw0()).log_page, nvme::raw(nvme::log_page::changed_namespaces));
}
TEST(nvmf_admin, forgets_notices_of_what_was_read) { test_target().run(forgets_what_was_read); }

// --- Identify, and namespaces that not everybody sees

task<> identifies_nothing_else(test_target& t) {
    test_host h(t);
    co_await h.connect();
    for (uint32_t nsid : {0u, 1u, 7u, 99u})
        for (uint32_t cns : {0x0au, 0x1bu, 0x33u, 0xffu})
            EXPECT_EQ(co_await h.status_of(identify(static_cast<nvme::cns>(cns), nsid)), status::invalid_field);
    for (nvme::cns what : {nvme::cns::active_namespace, nvme::cns::allocated_namespace})
        EXPECT_EQ(co_await h.status_of(identify(what, 0)), status::invalid_namespace_or_format);
}
TEST(nvmf_admin, identifies_nothing_else) { test_target().run(identifies_nothing_else); }

task<> hides(test_target& t) {
    bdev::properties p = test_options::whole_disk();
    p.name = "hidden";
    co_await t.add_disk(p);
    connect_wish other;
    other.hostnqn = "nqn.2014-08.org.nvmexpress:other";
    test_host blind(t), sees(t), q(t), r(t);
    co_await blind.connect();
    co_await sees.connect(other);
    co_await q.connect_io(blind.controller_id);
    co_await r.connect_io(sees.controller_id, {.qid = 1, .hostnqn = other.hostnqn});
    uint16_t told = sees.submit(event_request()), untold = blind.submit(event_request());
    auto listed = [](test_host& h, nvme::cns what) -> task<uint32_t> {
        co_return read_as<nvme::namespace_list>((co_await h.command(identify(what, 1))).data).ids[0];
    };
    auto expect = [&](bool seen) -> task<> {
        for (nvme::cns what : {nvme::cns::active_namespace_list, nvme::cns::allocated_namespace_list}) {
            EXPECT_EQ(co_await listed(blind, what), 0u);
            EXPECT_EQ(co_await listed(sees, what), seen ? 2u : 0u);
        }
        EXPECT_EQ(co_await r.status_of(read_command(2, 0, 1)),
                  seen ? status::success : status::invalid_namespace_or_format);
        EXPECT_EQ(co_await q.status_of(read_command(2, 0, 1)), status::invalid_namespace_or_format);
    };
    for (int round = 0; round < 2; ++round) {
        co_await t.cnode1->add_namespace({.nsid = 2, .bdev_name = "hidden", .no_auto_visible = true});
        co_await expect(false);  // in the second round, too: it is another
        EXPECT_TRUE(t.cnode1->show(2, other.hostnqn, true));
        co_await expect(true);
        EXPECT_EQ((co_await sees.reply_to(told)).code(), status::success);
        co_await sees.command(log_command(nvme::log_page::changed_namespaces, 4096));
        told = sees.submit(event_request());
        co_await t.cnode1->remove_namespace(2);
        EXPECT_EQ((co_await sees.reply_to(told)).code(), status::success);
        co_await sees.command(log_command(nvme::log_page::changed_namespaces, 4096));
        told = sees.submit(event_request());
    }
    EXPECT_EQ(blind.line.from_target, "");
    reply log = co_await blind.command(log_command(nvme::log_page::changed_namespaces, 4096));
    EXPECT_EQ(log.data, std::string(4096, '\0'));
    (void)untold;
}
TEST(nvmf_admin, hides_namespaces) { test_target().run(hides); }

}  // namespace
}  // namespace varve::targets::nvmf::protocol_tests
