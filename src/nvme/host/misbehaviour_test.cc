// The host against a target that is broken, malicious or gone: a clear error, every request completed, nothing touched
// that should not be.
#include <gtest/gtest.h>

#include <cstring>

#include "accel/crc32c.h"
#include "nvme/host/fake_target.h"
#include "nvme/host/test_host.h"
#include "nvme/text.h"
#include "thread/awaits.h"

namespace varve::nvme::host {
namespace {

class nvme_misbehaviour : public nvme_host {};
INSTANTIATE_TEST_SUITE_P(worlds, nvme_misbehaviour, thread::every_world(), thread::world_name);

using tcp::fatal_error;
using tcp::pdu_type;
namespace pdu_flag = tcp::pdu_flag;

template <class Pdu>
std::string bytes_of(const Pdu& pdu) {
    return std::string(reinterpret_cast<const char*>(&pdu), sizeof pdu);
}

template <class Pdu>
Pdu pdu_of(pdu_type type) {
    Pdu pdu{};
    pdu.ch = {.type = raw(type), .flags = 0, .hlen = sizeof pdu, .pdo = 0, .plen = sizeof pdu};
    return pdu;
}

tcp::ic_resp good_ic() {
    auto pdu = pdu_of<tcp::ic_resp>(pdu_type::ic_resp);
    pdu.maxh2cdata = 8192;
    return pdu;
}

// ---- The handshake ----

struct bad_handshake {
    const char* what;
    std::string answer;
    fatal_error says;
    uint32_t field;
};

std::vector<bad_handshake> bad_handshakes() {
    std::vector<bad_handshake> all;
    const auto add = [&all](const char* what, fatal_error says, uint32_t field, auto change) {
        tcp::ic_resp pdu = good_ic();
        change(pdu);
        all.push_back({what, bytes_of(pdu), says, field});
    };
    add("PFV", fatal_error::unsupported_parameter, 8, [](auto& p) { p.pfv = 1; });
    add("CPDA", fatal_error::invalid_header_field, 10, [](auto& p) { p.cpda = 32; });
    add("DGST", fatal_error::invalid_header_field, 11, [](auto& p) { p.dgst = 1; });
    add("MAXH2CDATA", fatal_error::invalid_header_field, 12, [](auto& p) { p.maxh2cdata = 4092; });
    add("MAXH2CDATA of 0", fatal_error::invalid_header_field, 12, [](auto& p) { p.maxh2cdata = 0; });
    add("HLEN", fatal_error::invalid_header_field, 2, [](auto& p) { p.ch.hlen = 24; });
    add("PLEN", fatal_error::invalid_header_field, 4, [](auto& p) { p.ch.plen = 129; });
    add("huge PLEN", fatal_error::invalid_header_field, 4, [](auto& p) { p.ch.plen = 0xffffffff; });
    add("type", fatal_error::invalid_header_field, 0, [](auto& p) { p.ch.type = 8; });
    add("our own type", fatal_error::invalid_header_field, 0, [](auto& p) { p.ch.type = raw(pdu_type::ic_req); });
    add("HDGSTF", fatal_error::invalid_header_field, 1, [](auto& p) { p.ch.flags = pdu_flag::header_digest; });
    all.push_back({"a response first", bytes_of(pdu_of<tcp::capsule_resp>(pdu_type::capsule_resp)),
                   fatal_error::sequence_error, 0});
    return all;
}

task<> meets_bad_handshakes(thread::runtime&) {
    fake_target target(here().loop(), {});
    for (const bad_handshake& bad : bad_handshakes()) {
        SCOPED_TRACE(bad.what);
        target.ic_answer = bad.answer;
        target.seen.clear();
        auto failed = co_await as_result(controller::connect(options_for(target)));
        EXPECT_EQ(failed.error().code(), errc::bad_message) << failed.error().message();
        while (target.seen["term"] == 0) co_await sleep(20 * microseconds);
        EXPECT_EQ(target.last_term.fes, raw(bad.says));
        EXPECT_EQ(target.last_term.fei, bad.field);
    }
    co_await target.stop();
}
TEST_P(nvme_misbehaviour, bad_handshakes_are_refused_with_a_reason) { run(GetParam(), meets_bad_handshakes); }

task<> meets_silence(thread::runtime&) {
    fake_target target(here().loop(), {});
    target.ignore_ic = true;
    auto options = options_for(target);
    options.tcp.handshake_timeout = 20 * milliseconds;
    auto failed = co_await as_result(controller::connect(options));
    EXPECT_EQ(failed.error().code(), errc::timed_out) << failed.error().message();
    target.ignore_ic = false;
    target.on_command = [](fake_connection&, const sqe&, const std::string&) { return true; };
    options.admin_timeout = 20 * milliseconds;
    failed = co_await as_result(controller::connect(options));
    EXPECT_EQ(failed.error().code(), errc::timed_out) << failed.error().message();
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_misbehaviour, silence_is_not_waited_for_forever) { run(GetParam(), meets_silence); }

task<> meets_nobody(thread::runtime&) {
    env::address nowhere;
    {
        fake_target target(here().loop(), {});
        nowhere = target.address();
        co_await target.stop();
    }
    auto failed = co_await as_result(controller::connect({.address = nowhere, .subnqn = "nqn.2024-01.io.varve:test"}));
    EXPECT_EQ(failed.error().code(), errc::refused) << failed.error().message();
}
TEST_IN_WORLDS(nvme_misbehaviour, nobody_is_an_error) { run(GetParam(), meets_nobody); }

task<> is_refused(thread::runtime&) {
    struct refusal {
        status answer;
        uint32_t dw0;
        errc code;
        const char* says;
    };
    fake_target target(here().loop(), {});
    for (const refusal& r : std::initializer_list<refusal>{
             {status::connect_invalid_host, 0, errc::access, "does not allow host"},
             {status::connect_invalid_parameters, invalid_connect_parameter(offsetof(connect_data, subnqn), true),
              errc::invalid, "byte 256 of the data (the subsystem's NQN)"},
             {status::connect_controller_busy, 0, errc::busy, "in use"},
             {status::invalid_field, 0, errc::invalid, "invalid field"},
             {status::success, 2u << 16 | 7, errc::unsupported, "authentication"}}) {
        target.on_command = [r](fake_connection& c, const sqe& command, const std::string&) {
            c.respond(command.cid, r.answer, r.dw0);
            return true;
        };
        auto failed = co_await as_result(controller::connect(options_for(target)));
        EXPECT_EQ(failed.error().code(), r.code);
        EXPECT_NE(failed.error().message().find(r.says), std::string::npos) << failed.error().message();
    }
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_misbehaviour, refusals_say_why) { run(GetParam(), is_refused); }

// ---- I/O ----

struct bad_answer {
    const char* what;
    bool write;  // the command it answers
    errc code;   // how the request fails ...
    status request_status;
    bool connection_survives;
    fatal_error says;
    fake_target::hook answer;
};

std::string data_pdu(uint16_t cid, uint32_t offset, uint32_t length, uint8_t flags) {
    auto pdu = pdu_of<tcp::c2h_data>(pdu_type::c2h_data);
    pdu.ch.flags = flags;
    pdu.ch.pdo = sizeof pdu;
    pdu.ch.plen = sizeof pdu + length;
    pdu.cccid = cid;
    pdu.datao = offset;
    pdu.datal = length;
    return bytes_of(pdu) + std::string(length, 'x');
}

using cid_t = uint16_t;
constexpr auto field = fatal_error::invalid_header_field;
constexpr auto range = fatal_error::data_out_of_range;

struct answers {
    std::vector<bad_answer> all;

    // `bytes` makes what is sent out of the command's identifier.
    void breaks(const char* what, bool write, fatal_error says, auto bytes) {
        all.push_back({what, write, errc::not_connected, status::aborted_by_host, false, says,
                       [bytes](fake_connection& c, const sqe& command, const std::string&) {
                           c.send_raw(bytes(command.cid.get()));
                           return true;
                       }});
    }
    void fails(const char* what, status s, fake_target::hook answer) {
        all.push_back({what, false, errc::io, s, true, {}, std::move(answer)});
    }
};

void add_bad_data(answers& to) {
    const auto changed = [](auto change) {
        return [change](cid_t cid) {
            std::string bytes = data_pdu(cid, 0, 4096, pdu_flag::last);
            change(bytes);
            return bytes;
        };
    };
    to.breaks("data of another command", false, field, [](cid_t c) { return data_pdu(c ^ 1, 0, 4096, 4); });
    to.breaks("data of an earlier use", false, field, [](cid_t c) { return data_pdu(c ^ 0x8000, 0, 4096, 4); });
    to.breaks("data beyond the end", false, range, [](cid_t c) { return data_pdu(c, 0, 8192, 4); });
    to.breaks("data at an offset", false, range, [](cid_t c) { return data_pdu(c, 512, 512, 4); });
    to.breaks("data with a gap", false, range,
              [](cid_t c) { return data_pdu(c, 0, 512, 0) + data_pdu(c, 1024, 512, 4); });
    to.breaks("data twice", false, range, [](cid_t c) { return data_pdu(c, 0, 4096, 0) + data_pdu(c, 0, 4096, 4); });
    to.breaks("no data", false, range, [](cid_t c) { return data_pdu(c, 0, 0, 4); });
    to.breaks("offset that wraps", false, range, [](cid_t c) { return data_pdu(c, 0xfffffe00, 512, 4); });
    to.breaks("data for a write", true, field, [](cid_t c) { return data_pdu(c, 0, 512, 4); });
    to.breaks("SUCCESS before the last", false, field, [](cid_t c) { return data_pdu(c, 0, 512, pdu_flag::success); });
    to.breaks("PDO in the header", false, field, changed([](std::string& b) { b[3] = 20; }));
    to.breaks("PDO between dwords", false, field, changed([](std::string& b) { b[3] = 25; }));
    to.breaks("PDO beyond PLEN", false, field, changed([](std::string& b) { b[3] = static_cast<char>(252); }));
    to.breaks("PLEN too long", false, field, changed([](std::string& b) { b[4]++; }));
    to.breaks("PLEN of 0", false, field, changed([](std::string& b) { b[4] = b[5] = 0; }));
    to.breaks("PLEN of 4 GiB", false, field, changed([](std::string& b) { b[7] = static_cast<char>(255); }));
    to.breaks("HLEN", false, field, changed([](std::string& b) { b[2] = 28; }));
    to.breaks("DDGSTF", false, field, changed([](std::string& b) { b[1] |= pdu_flag::data_digest; }));
    to.breaks("HDGSTF", false, field, changed([](std::string& b) { b[1] |= pdu_flag::header_digest; }));
    to.breaks("unknown type", false, field, changed([](std::string& b) { b[0] = 0x55; }));
}

void add_bad_others(answers& to) {
    to.breaks("a second ICResp", false, fatal_error::sequence_error, [](cid_t) { return bytes_of(good_ic()); });
    to.breaks("a response to no command", false, field, [](cid_t c) {
        auto pdu = pdu_of<tcp::capsule_resp>(pdu_type::capsule_resp);
        pdu.completion.cid = static_cast<uint16_t>(c + 1);
        return bytes_of(pdu);
    });
    const auto r2t = [](uint32_t offset, uint32_t length, uint16_t other = 0, int times = 1) {
        return [=](cid_t c) {
            auto pdu = pdu_of<tcp::r2t>(pdu_type::r2t);
            pdu.cccid = static_cast<uint16_t>(c ^ other);
            pdu.r2to = offset;
            pdu.r2tl = length;
            std::string bytes;
            for (int i = 0; i < times; ++i) bytes += bytes_of(pdu);
            return bytes;
        };
    };
    to.breaks("R2T for a read", false, field, r2t(0, 512));
    to.breaks("R2T for no command", true, field, r2t(0, 512, 1));
    to.breaks("R2T beyond the end", true, range, r2t(0, 65536 + 1));
    to.breaks("R2T that wraps", true, range, r2t(0xffffff00, 0x200));
    to.breaks("R2T of nothing", true, range, r2t(0, 0));
}

void add_bad_ends(answers& to) {
    to.fails("too little data", status::data_transfer_error,
             [](fake_connection& c, const sqe& command, const std::string&) {
                 c.send_data(command.cid, std::string(512, 'x'), 0, pdu_flag::last | pdu_flag::success);
                 return true;
             });
    to.fails("success without data", status::data_transfer_error,
             [](fake_connection& c, const sqe& command, const std::string&) {
                 c.respond(command.cid, status::success);
                 return true;
             });
    to.fails("an error after data", status::unrecovered_read_error,
             [](fake_connection& c, const sqe& command, const std::string&) {
                 c.send_data(command.cid, std::string(4096, 'x'), 0, pdu_flag::last);
                 c.respond(command.cid, status::unrecovered_read_error);
                 return true;
             });
}

task<> meets_bad_answers(thread::runtime&) {
    // Writes are too large for a capsule, so that they are asked for.
    fake_target target(here().loop(), {.in_capsule = 0});
    target.namespaces[1] = {.bytes = std::string(1 << 20, 'a'), .block_shift = 9};
    answers bad_answers;
    add_bad_data(bad_answers);
    add_bad_others(bad_answers);
    add_bad_ends(bad_answers);
    for (bad_answer& bad : bad_answers.all) {
        SCOPED_TRACE(bad.what);
        target.on_command = nullptr;
        target.seen.clear();
        auto c = co_await controller::connect(options_for(target));
        auto q = co_await c->open_queue();
        std::vector<std::byte> guarded(3 * 65536, std::byte{0x5a});
        const auto memory = std::span(guarded).subspan(65536, bad.write ? 65536 : 4096);
        request innocent, r;
        r.command = block_command(bad.write ? nvm_opcode::write : nvm_opcode::read, 1, 0,
                                  static_cast<uint32_t>(memory.size() / 512));
        r.set_data(memory);
        (bad.write ? target.on_capsule : target.on_command) = std::move(bad.answer);
        co_await execute(*q, r);
        EXPECT_EQ(r.code(), bad.request_status) << describe(r.code());
        if (bad.connection_survives) {
            target.on_command = nullptr;
            co_await c->namespaces()[0].read(*q, 0, memory);
            EXPECT_EQ(memory[0], std::byte{'a'});
        } else {
            while (q->ready()) co_await sleep(20 * microseconds);
            EXPECT_EQ(q->failure()->code(), errc::bad_message);
            while (target.seen["term"] == 0) co_await sleep(20 * microseconds);
            EXPECT_EQ(target.last_term.fes, raw(bad.says)) << q->failure()->message();
            // What is submitted now fails, later.
            innocent.command = flush_command(1);
            co_await execute(*q, innocent);
            EXPECT_EQ(innocent.code(), status::aborted_by_host);
        }
        for (std::size_t i = 0; i < 65536; ++i) {
            if (guarded[i] != std::byte{0x5a} || guarded[guarded.size() - 1 - i] != std::byte{0x5a}) {
                ADD_FAILURE() << "wrote beside the memory";
                break;
            }
        }
        target.on_capsule = nullptr;
        co_await c->close_queue(std::move(q));
        co_await c->disconnect();
    }
    co_await target.stop();
}
TEST_P(nvme_misbehaviour, bad_answers_break_the_connection_or_the_request) { run(GetParam(), meets_bad_answers); }

task<> meets_bad_digests(thread::runtime&) {
    fake_target target(here().loop(), {});
    target.namespaces[1] = {.bytes = std::string(1 << 20, 'a'), .block_shift = 9};
    auto options = options_for(target);
    options.tcp = {.header_digest = true, .data_digest = true};
    for (const bool in_header : {false, true}) {
        target.on_command = nullptr;
        auto c = co_await controller::connect(options);
        auto q = co_await c->open_queue();
        const ns disk = *c->find(1);
        target.on_command = [in_header](fake_connection& t, const sqe& command, const std::string&) {
            auto pdu = pdu_of<tcp::c2h_data>(pdu_type::c2h_data);
            pdu.ch.flags = pdu_flag::last | pdu_flag::success | pdu_flag::header_digest | pdu_flag::data_digest;
            pdu.ch.pdo = 28;
            pdu.ch.plen = 28 + 512 + 4;
            pdu.cccid = command.cid;
            pdu.datal = 512;
            std::string header = bytes_of(pdu);
            uint32_t crc = accel::crc32c(std::as_bytes(std::span(header)));
            if (in_header) crc ^= 1;
            t.send_raw(header + bytes_of(le32(crc)) + std::string(512, 'a') + std::string(4, 0));
            return true;
        };
        std::vector<std::byte> block(512);
        request r;
        r.command = block_command(nvm_opcode::read, 1, 0, 1);
        r.set_data(block);
        co_await execute(*q, r);
        if (in_header) {
            EXPECT_EQ(r.code(), status::aborted_by_host);
            while (target.seen["term"] == 0) co_await sleep(20 * microseconds);
            EXPECT_EQ(target.last_term.fes, raw(fatal_error::header_digest_error));
        } else {
            EXPECT_EQ(r.code(), status::transient_transport_error);
            target.on_command = nullptr;
            co_await disk.read(*q, 0, block);  // the connection goes on
        }
        co_await c->close_queue(std::move(q));
        co_await c->disconnect();
    }
    co_await target.stop();
}
TEST_P(nvme_misbehaviour, bad_digests) { run(GetParam(), meets_bad_digests); }

// ---- The connection goes ----

struct counted : request {
    unsigned* completed;
    unsigned* failed;
};

task<> loses_connection(thread::runtime&, bool terminated) {
    fake_target target(here().loop(), {});
    target.namespaces[1] = {.bytes = std::string(1 << 20, 'a'), .block_shift = 9};
    auto options = options_for(target);
    options.io_queue_entries = 17;
    auto c = co_await controller::connect(options);
    auto q = co_await c->open_queue();
    unsigned answered = 0;
    target.on_command = [&](fake_connection& t, const sqe& command, const std::string&) {
        if (t.qid == 0) return false;
        if (++answered == 10) {
            if (terminated) {
                auto pdu = pdu_of<tcp::term_req>(pdu_type::c2h_term_req);
                pdu.fes = raw(fatal_error::limit_exceeded);
                t.send_raw(bytes_of(pdu));
            } else {
                t.close();
            }
        }
        if (answered < 10) t.respond(command.cid, status::success);
        return true;
    };
    // Fewer than all fit the queue.
    unsigned completed = 0, failed = 0;
    std::vector<std::byte> block(512);
    std::vector<std::unique_ptr<counted>> all;
    for (int i = 0; i < 100; ++i) {
        counted& r = *all.emplace_back(std::make_unique<counted>());
        r.completed = &completed;
        r.failed = &failed;
        r.command = i % 2 == 0 ? flush_command(1) : block_command(nvm_opcode::write, 1, 0, 1);
        if (i % 2 != 0) r.set_data(block);
        r.done = [](request& over) noexcept {
            auto& mine = static_cast<counted&>(over);
            ++*mine.completed;
            if (!mine.ok()) ++*mine.failed;
        };
        q->submit(r);
    }
    while (completed < 100) co_await sleep(20 * microseconds);
    EXPECT_GE(failed, 91u);  // more when the first answers were overtaken by the end of the connection
    for (auto& r : all) EXPECT_TRUE(r->ok() || r->code() == status::aborted_by_host);
    EXPECT_FALSE(q->ready());
    EXPECT_EQ(q->failure()->code(), errc::reset) << q->failure()->message();
    EXPECT_FALSE(c->lost());  // the admin queue is another connection
    co_await c->close_queue(std::move(q));
    target.on_command = nullptr;
    q = co_await c->open_queue();
    co_await c->find(1)->read(*q, 0, block);
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_misbehaviour, a_lost_connection_completes_everything) {
    for (bool terminated : {false, true})
        run(GetParam(), [=](thread::runtime& rt) { return loses_connection(rt, terminated); });
}

task<> closes_under_load(thread::runtime&) {
    fake_target target(here().loop(), {});
    target.namespaces[1] = {.bytes = std::string(1 << 20, 'a'), .block_shift = 9};
    auto c = co_await controller::connect(options_for(target));
    auto q = co_await c->open_queue();
    target.on_command = [](fake_connection& t, const sqe&, const std::string&) { return t.qid != 0; };
    unsigned completed = 0, failed = 0;
    std::vector<std::unique_ptr<counted>> all;
    for (int i = 0; i < 500; ++i) {
        counted& r = *all.emplace_back(std::make_unique<counted>());
        r.completed = &completed;
        r.failed = &failed;
        r.command = flush_command(1);
        r.done = [](request& over) noexcept { ++*static_cast<counted&>(over).completed; };
        q->submit(r);
    }
    co_await c->close_queue(std::move(q));
    EXPECT_EQ(completed, 500u);
    co_await c->disconnect();
    co_await target.stop();
}
TEST_IN_WORLDS(nvme_misbehaviour, closing_completes_everything) { run(GetParam(), closes_under_load); }

// An answer to a write whose data was not asked for completely: what remains is not sent for a command that is over.
task<> is_answered_early(thread::runtime&) {
    fake_target target(here().loop(), {.maxh2cdata = 4096, .in_capsule = 0});
    target.namespaces[1] = {.bytes = std::string(4 << 20, 'a'), .block_shift = 9};
    auto c = co_await controller::connect(options_for(target));
    auto q = co_await c->open_queue();
    std::vector<std::byte> memory(128 << 10);
    target.on_capsule = [](fake_connection& t, const sqe& command, const std::string&) {
        t.send_r2t(command.cid, 1, 0, command.dptr.length);
        t.respond(command.cid, status::capacity_exceeded);
        return true;
    };
    for (int round = 0; round < 20; ++round) {
        std::vector<std::unique_ptr<counted>> all;
        unsigned completed = 0, failed = 0;
        for (int i = 0; i < 20; ++i) {
            counted& r = *all.emplace_back(std::make_unique<counted>());
            r.completed = &completed;
            r.failed = &failed;
            r.command = block_command(nvm_opcode::write, 1, 0, 256);
            r.set_data(memory);
            r.done = [](request& over) noexcept {
                auto& mine = static_cast<counted&>(over);
                ++*mine.completed;
                if (mine.code() == status::capacity_exceeded) ++*mine.failed;
            };
            q->submit(r);
        }
        while (completed < 20) co_await sleep(20 * microseconds);
        EXPECT_EQ(failed, 20u);
    }
    EXPECT_TRUE(q->ready());
    co_await c->close_queue(std::move(q));
    co_await c->disconnect();
    co_await target.stop();
}
TEST_P(nvme_misbehaviour, early_answers_end_the_transfer) { run(GetParam(), is_answered_early); }

}  // namespace
}  // namespace varve::nvme::host
