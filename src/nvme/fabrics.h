// Fabrics commands (Base 6), the properties they read and write (Base 3.1.3), names of subsystems and hosts (Base 4.5).
#pragma once

#include <string_view>

#include "nvme/spec.h"

namespace varve::nvme {

// Byte 4 of a command whose opcode is 7Fh.
enum class fabrics_type : uint8_t {
    property_set = 0x00,
    connect = 0x01,
    property_get = 0x04,
    authentication_send = 0x05,
    authentication_receive = 0x06,
    disconnect = 0x08,
};

struct fabrics_command {
    uint8_t opcode;
    uint8_t flags;
    le16 cid;
    uint8_t type;
    uint8_t reserved5[35];
    uint8_t specific[24];
};
static_assert(sizeof(fabrics_command) == 64 && offsetof(fabrics_command, specific) == 40);

// ---- Connect (Base 6.3) ----

namespace connect_attribute {
constexpr uint8_t priority_mask = 0x3, disable_sq_flow_control = 1 << 2, individual_queue_deletion = 1 << 3;
}

struct connect_command {
    uint8_t opcode;
    uint8_t flags;
    le16 cid;
    uint8_t type;
    uint8_t reserved5[19];
    sgl_descriptor dptr;
    le16 record_format;
    le16 qid;
    le16 sqsize;  // from 0
    uint8_t attributes;
    uint8_t reserved47;
    le32 keep_alive_ms;  // KATO, admin queue only
    uint8_t reserved52[12];
};
static_assert(sizeof(connect_command) == 64 && offsetof(connect_command, dptr) == 24);
static_assert(offsetof(connect_command, record_format) == 40 && offsetof(connect_command, qid) == 42);
static_assert(offsetof(connect_command, sqsize) == 44 && offsetof(connect_command, keep_alive_ms) == 48);

struct connect_data {
    uint8_t host_id[16];
    le16 controller_id;  // FFFFh: any, on the admin queue of the dynamic model
    uint8_t reserved18[238];
    char subnqn[256];
    char hostnqn[256];
    uint8_t reserved768[256];
};
static_assert(sizeof(connect_data) == 1024 && offsetof(connect_data, controller_id) == 16);
static_assert(offsetof(connect_data, subnqn) == 256 && offsetof(connect_data, hostnqn) == 512);

// The answer. With connect_invalid_parameters the first dword says which parameter: its offset in the command, or, when
// in_data is set, in the data.
struct connect_response {
    union {
        struct {
            le16 controller_id;
            le16 authentication;  // bit 1: transaction required (ATR), bit 2: secure channel too (ASCR)
        } ok;
        struct {
            le16 parameter_offset;  // IPO
            uint8_t in_data;        // IATTR bit 0
            uint8_t reserved3;
        } invalid;
        le32 dw0;
    };
    le32 reserved4;
    le16 sqhd;  // FFFFh when SQ flow control is disabled
    le16 reserved10;
    le16 cid;
    le16 status_field;
};
static_assert(sizeof(connect_response) == 16 && offsetof(connect_response, sqhd) == 8);

// CDW0 of an answer with connect_invalid_parameters. `offset` as offsetof() in connect_command or connect_data gives
// it.
constexpr uint32_t invalid_connect_parameter(std::size_t offset, bool in_data) noexcept {
    return static_cast<uint32_t>(offset) | (in_data ? 1u << 16 : 0u);
}

// ---- Properties (Base 6.5, 6.6, 3.1.3) ----

enum class property : uint32_t {
    cap = 0x00,  // eight bytes
    vs = 0x08,   // four bytes, and so the others
    cc = 0x14,
    csts = 0x1c,
    nssr = 0x20,
    crto = 0x68,
};

struct property_get_command {
    uint8_t opcode;
    uint8_t flags;
    le16 cid;
    uint8_t type;
    uint8_t reserved5[35];
    uint8_t attributes;  // size in bits 2:0: 0 for four bytes, 1 for eight
    uint8_t reserved41[3];
    le32 offset;
    uint8_t reserved48[16];
};
static_assert(sizeof(property_get_command) == 64 && offsetof(property_get_command, attributes) == 40);
static_assert(offsetof(property_get_command, offset) == 44);

struct property_set_command {
    uint8_t opcode;
    uint8_t flags;
    le16 cid;
    uint8_t type;
    uint8_t reserved5[35];
    uint8_t attributes;
    uint8_t reserved41[3];
    le32 offset;
    le64 value;
    uint8_t reserved56[8];
};
static_assert(sizeof(property_set_command) == 64 && offsetof(property_set_command, value) == 48);

struct property_get_response {
    le64 value;
    le16 sqhd;
    le16 reserved10;
    le16 cid;
    le16 status_field;
};
static_assert(sizeof(property_get_response) == 16);

struct disconnect_command {  // Base 6.4
    uint8_t opcode;
    uint8_t flags;
    le16 cid;
    uint8_t type;
    uint8_t reserved5[35];
    le16 record_format;
    uint8_t reserved42[22];
};
static_assert(sizeof(disconnect_command) == 64 && offsetof(disconnect_command, record_format) == 40);

// CAP, taken apart.
struct controller_capabilities {
    uint16_t queue_entries_max = 0;   // MQES, from 0
    bool contiguous_queues = false;   // CQR
    uint8_t ready_timeout_500ms = 0;  // TO
    uint8_t doorbell_stride = 0;      // DSTRD
    uint8_t command_sets = 0;         // CSS: bit 0 NVM, bit 6 several, bit 7 none
    uint8_t page_size_min = 0;        // MPSMIN: 2^(12 + n)
    uint8_t page_size_max = 0;        // MPSMAX

    constexpr uint64_t encode() const noexcept {
        return static_cast<uint64_t>(queue_entries_max) | (contiguous_queues ? 1ull << 16 : 0) |
               static_cast<uint64_t>(ready_timeout_500ms) << 24 | static_cast<uint64_t>(doorbell_stride & 0xf) << 32 |
               static_cast<uint64_t>(command_sets) << 37 | static_cast<uint64_t>(page_size_min & 0xf) << 48 |
               static_cast<uint64_t>(page_size_max & 0xf) << 52;
    }
    static constexpr controller_capabilities decode(uint64_t value) noexcept {
        return {.queue_entries_max = static_cast<uint16_t>(value),
                .contiguous_queues = (value >> 16 & 1) != 0,
                .ready_timeout_500ms = static_cast<uint8_t>(value >> 24),
                .doorbell_stride = static_cast<uint8_t>(value >> 32 & 0xf),
                .command_sets = static_cast<uint8_t>(value >> 37),
                .page_size_min = static_cast<uint8_t>(value >> 48 & 0xf),
                .page_size_max = static_cast<uint8_t>(value >> 52 & 0xf)};
    }
    bool operator==(const controller_capabilities&) const = default;
};
constexpr uint8_t css_nvm = 1 << 0, css_several = 1 << 6, css_none = 1 << 7;

constexpr uint32_t version_number(unsigned major, unsigned minor, unsigned tertiary) noexcept {  // VS
    return major << 16 | minor << 8 | tertiary;
}

// CC, taken apart.
struct controller_configuration {
    bool enable = false;
    uint8_t command_set = 0;    // CSS: 0 NVM, 6 all supported, 7 admin only
    uint8_t page_size = 0;      // MPS
    uint8_t arbitration = 0;    // AMS
    uint8_t shutdown = 0;       // SHN: 1 normal, 2 abrupt
    uint8_t sqe_size_log2 = 0;  // IOSQES: 6
    uint8_t cqe_size_log2 = 0;  // IOCQES: 4

    constexpr uint32_t encode() const noexcept {
        return (enable ? 1u : 0u) | (command_set & 0x7u) << 4 | (page_size & 0xfu) << 7 | (arbitration & 0x7u) << 11 |
               (shutdown & 0x3u) << 14 | (sqe_size_log2 & 0xfu) << 16 | (cqe_size_log2 & 0xfu) << 20;
    }
    static constexpr controller_configuration decode(uint32_t value) noexcept {
        return {.enable = (value & 1) != 0,
                .command_set = static_cast<uint8_t>(value >> 4 & 0x7),
                .page_size = static_cast<uint8_t>(value >> 7 & 0xf),
                .arbitration = static_cast<uint8_t>(value >> 11 & 0x7),
                .shutdown = static_cast<uint8_t>(value >> 14 & 0x3),
                .sqe_size_log2 = static_cast<uint8_t>(value >> 16 & 0xf),
                .cqe_size_log2 = static_cast<uint8_t>(value >> 20 & 0xf)};
    }
    bool operator==(const controller_configuration&) const = default;
};

namespace csts {
constexpr uint32_t ready = 1u << 0, fatal = 1u << 1, shutdown_mask = 3u << 2, shutdown_occurring = 1u << 2,
                   shutdown_complete = 2u << 2;
}

// ---- Names (Base 4.5) ----

constexpr std::string_view discovery_nqn = "nqn.2014-08.org.nvmexpress.discovery";
constexpr std::string_view uuid_nqn_prefix = "nqn.2014-08.org.nvmexpress:uuid:";
constexpr std::size_t nqn_length_max = 223;
constexpr std::size_t nqn_field_size = 256;

constexpr uint16_t admin_queue_entries_min = 32;  // Base 6.3: SQSIZE of an admin queue is at least 31

}  // namespace varve::nvme
