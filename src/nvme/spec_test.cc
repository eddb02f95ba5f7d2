// Wire layout: structures filled by name and compared with bytes written out by hand from the specifications' figures.
#include "nvme/spec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <vector>

#include "nvme/fabrics.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/tcp.h"
#include "nvme/text.h"

namespace varve::nvme {
namespace {

// Some bytes of a structure; all others must be zero.
struct at {
    std::size_t offset;
    std::vector<uint8_t> bytes;
};

template <class T>
void expect_bytes(const T& value, std::initializer_list<at> pieces) {
    std::vector<uint8_t> expected(sizeof(T));
    for (const at& piece : pieces) {
        ASSERT_LE(piece.offset + piece.bytes.size(), sizeof(T));
        std::memcpy(expected.data() + piece.offset, piece.bytes.data(), piece.bytes.size());
    }
    std::vector<uint8_t> real(sizeof(T));
    std::memcpy(real.data(), &value, sizeof(T));
    for (std::size_t i = 0; i < sizeof(T); ++i) ASSERT_EQ(real[i], expected[i]) << "byte " << i;
}

TEST(nvme_wire, read_command) {
    sqe c{};
    c.opcode = raw(nvm_opcode::read);
    c.set_flags(fuse::second, data_pointer::sgl);
    c.cid = 0x1234;
    c.nsid = 1;
    c.set_slba(0x1122334455667788);
    c.cdw12 = 7u | cdw12::force_unit_access;
    c.dptr = sgl_descriptor::by_transport(0x1000);
    expect_bytes(c, {{0, {0x02, 0x42, 0x34, 0x12, 0x01}},
                     {32, {0x00, 0x10, 0x00, 0x00}},
                     {39, {0x5a}},
                     {40, {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x07, 0x00, 0x00, 0x40}}});
    EXPECT_EQ(c.slba(), 0x1122334455667788u);
    EXPECT_EQ(c.blocks(), 8u);
    EXPECT_EQ(c.fused(), fuse::second);
    EXPECT_EQ(c.psdt(), data_pointer::sgl);
    EXPECT_EQ(c.dptr.type(), sgl_type::transport_data_block);
    EXPECT_EQ(c.dptr.subtype(), sgl_subtype::transport);
}

TEST(nvme_wire, sgl_descriptors) {
    expect_bytes(sgl_descriptor::in_capsule(0x2000, 0x40), {{0, {0x40}}, {8, {0x00, 0x20}}, {15, {0x01}}});
    expect_bytes(sgl_descriptor::at_address(sgl_type::last_segment, 0x1000, 0x20),
                 {{0, {0x00, 0x10}}, {8, {0x20}}, {15, {0x30}}});
}

TEST(nvme_wire, completion) {
    cqe c{};
    c.cdw0 = 0x01020304;
    c.sqhd = 9;
    c.cid = 0xabcd;
    c.status_field = make_status(status::lba_out_of_range, true);
    expect_bytes(c, {{0, {4, 3, 2, 1}}, {8, {9}}, {12, {0xcd, 0xab, 0x00, 0x81}}});
    EXPECT_EQ(c.code(), status::lba_out_of_range);
    EXPECT_TRUE(c.dnr());
    EXPECT_FALSE(c.ok());
    c.status_field = make_status(status::compare_failure);
    EXPECT_EQ(c.status_field.get(), 0x050a);
    EXPECT_EQ(type_of(c.code()), status_type::media);
    EXPECT_EQ(code_of(c.code()), 0x85);
    EXPECT_EQ(status_from(status_type::media, 0x85), status::compare_failure);
    c.status_field = 0xe001;  // phase, CRD, more and do-not-retry are not part of the status
    EXPECT_EQ(c.status_field.get() & 0x0ffe, 0);
    EXPECT_TRUE(c.ok());
}

TEST(nvme_wire, ranges) {
    expect_bytes(dsm_range{.attributes = 0, .blocks = 8, .slba = 0x100000000}, {{4, {8}}, {12, {1}}});
    copy_range r{};
    r.slba = 0x10;
    r.blocks = 0xff;
    r.expected_reference_tag = 0x01020304;
    r.application_tag_mask = 0xffff;
    expect_bytes(r, {{8, {0x10}}, {16, {0xff}}, {24, {4, 3, 2, 1}}, {30, {0xff, 0xff}}});
    EXPECT_EQ(copy_range_count(0x0000'0103), 4u);
    EXPECT_EQ(copy_format(0x0000'0103), 1u);
}

TEST(nvme_wire, get_log_page) {
    sqe c{};
    log_request wanted{
        .id = log_page::discovery, .specific = 1, .retain_event = true, .length = 0x50000, .offset = 0x1'0000'0400};
    wanted.encode(c);
    // 0x14000 dwords, so NUMD is 0x13fff.
    expect_bytes(c, {{40, {0x70, 0x81, 0xff, 0x3f, 0x01}}, {48, {0x00, 0x04, 0x00, 0x00, 0x01}}});
    log_request read = log_request::decode(c);
    EXPECT_EQ(read.id, log_page::discovery);
    EXPECT_EQ(read.specific, 1);
    EXPECT_TRUE(read.retain_event);
    EXPECT_EQ(read.length, wanted.length);
    EXPECT_EQ(read.offset, wanted.offset);
}

TEST(nvme_wire, connect) {
    connect_command c{};
    c.opcode = raw(nvm_opcode::fabrics);
    c.flags = 0x40;
    c.type = raw(fabrics_type::connect);
    c.qid = 3;
    c.sqsize = 127;
    c.attributes = connect_attribute::disable_sq_flow_control;
    c.keep_alive_ms = 10'000;
    c.dptr = sgl_descriptor::in_capsule(1024);
    expect_bytes(
        c, {{0, {0x7f, 0x40, 0, 0, 1}}, {32, {0, 4, 0, 0}}, {39, {0x01}}, {42, {3, 0, 127, 0, 4}}, {48, {0x10, 0x27}}});
    connect_response r{};
    r.dw0 = invalid_connect_parameter(offsetof(connect_data, subnqn), true);
    EXPECT_EQ(r.invalid.parameter_offset, 256);
    EXPECT_EQ(r.invalid.in_data, 1);
    r.dw0 = 0x0002'0011;
    EXPECT_EQ(r.ok.controller_id, 0x11);
    EXPECT_EQ(r.ok.authentication, 2);
}

TEST(nvme_wire, properties) {
    property_set_command c{};
    c.opcode = raw(admin_opcode::fabrics);
    c.type = raw(fabrics_type::property_set);
    c.offset = raw(property::cc);
    const controller_configuration cc{.enable = true, .sqe_size_log2 = 6, .cqe_size_log2 = 4};
    c.value = cc.encode();
    expect_bytes(c, {{0, {0x7f}}, {44, {0x14}}, {48, {0x01, 0x00, 0x46}}});
    EXPECT_EQ(controller_configuration::decode(0x00460001), cc);
    const controller_capabilities cap{
        .queue_entries_max = 127, .contiguous_queues = true, .ready_timeout_500ms = 30, .command_sets = css_nvm};
    EXPECT_EQ(cap.encode(), 0x0000'0020'1e01'007fu);
    EXPECT_EQ(controller_capabilities::decode(0x0000'0020'1e01'007f), cap);
    EXPECT_EQ(version_number(1, 4, 0), 0x00010400u);
}

TEST(nvme_wire, tcp_pdus) {
    using namespace tcp;
    ic_req q{};
    q.ch = {.type = raw(pdu_type::ic_req), .flags = 0, .hlen = sizeof q, .pdo = 0, .plen = sizeof q};
    q.dgst = digest_enable::header | digest_enable::data;
    q.maxr2t = 3;
    expect_bytes(q, {{0, {0, 0, 128, 0, 128}}, {11, {3, 3}}});
    h2c_data d{};
    d.ch = {.type = raw(pdu_type::h2c_data), .flags = pdu_flag::last, .hlen = 24, .pdo = 24, .plen = 24 + 4096};
    d.cccid = 5;
    d.ttag = 6;
    d.datao = 8192;
    d.datal = 4096;
    expect_bytes(d, {{0, {6, 4, 24, 24, 0x18, 0x10, 0, 0, 5, 0, 6, 0, 0, 0x20, 0, 0, 0, 0x10}}});
    term_req t{};
    t.ch = {.type = raw(pdu_type::c2h_term_req), .flags = 0, .hlen = 24, .pdo = 0, .plen = 24 + 8};
    t.fes = raw(fatal_error::header_digest_error);
    t.fei = 0xdeadbeef;
    expect_bytes(t, {{0, {3, 0, 24, 0, 32, 0, 0, 0, 3, 0, 0xef, 0xbe, 0xad, 0xde}}});
}

TEST(nvme_wire, tcp_offsets) {
    using namespace tcp;
    EXPECT_EQ(data_offset(72, false, 0), 72);
    EXPECT_EQ(data_offset(72, true, 0), 76);
    EXPECT_EQ(data_offset(24, true, 1), 32);
    EXPECT_EQ(data_offset(72, true, pda_max), 128);
    EXPECT_EQ(pdu_length(76, 4096, true), 76u + 4096 + 4);
    EXPECT_EQ(header_length(static_cast<pdu_type>(8)), 0);
    EXPECT_EQ(header_length(pdu_type::capsule_cmd), 72);
}

TEST(nvme_wire, events) {
    const async_event e{event_type::notice, event_info::notice_namespace_changed, raw(log_page::changed_namespaces)};
    EXPECT_EQ(e.encode(), 0x00040002u);
    EXPECT_EQ(async_event::decode(0x00040002), e);
    EXPECT_EQ(number_of_queues(4, 8), 0x00070003u);
}

TEST(nvme_wire, namespace_format_index) {
    identify_namespace n{};
    n.flbas = 0x25;  // the upper bits count only beyond 16 formats
    n.nlbaf = 15;
    EXPECT_EQ(n.format_index(), 5u);
    n.nlbaf = 40;
    EXPECT_EQ(n.format_index(), 0x15u);
}

TEST(nvme_text, statuses_and_opcodes) {
    EXPECT_EQ(text_of(status::lba_out_of_range), "LBA out of range");
    EXPECT_EQ(describe(status::compare_failure), "compare failure (2/85h)");
    EXPECT_EQ(describe(static_cast<status>(0x7c1)), "unknown status (7/c1h)");
    EXPECT_EQ(opcode_text(0x02, true), "get log page");
    EXPECT_EQ(opcode_text(0x02, false), "read");
    EXPECT_EQ(opcode_text(0xff, false), "unknown I/O command");
}

TEST(nvme_text, fields) {
    char field[8];
    pad_with_spaces(field, sizeof field, "abc");
    EXPECT_EQ(std::string_view(field, 8), "abc     ");
    EXPECT_EQ(trimmed({field, 8}), "abc");
    pad_with_spaces(field, sizeof field, "123456789");
    EXPECT_EQ(std::string_view(field, 8), "12345678");
    EXPECT_TRUE(pad_with_zeroes(field, sizeof field, "1234567"));
    EXPECT_EQ(trimmed({field, 8}), "1234567");
    EXPECT_FALSE(pad_with_zeroes(field, sizeof field, "12345678"));
    EXPECT_EQ(trimmed({"   ", 3}), "");
}

}  // namespace
}  // namespace varve::nvme
