// Log pages (Base 5.16) and the dwords of Get Log Page.
#pragma once

#include "nvme/spec.h"

namespace varve::nvme {

enum class log_page : uint8_t {
    supported = 0x00,
    error_information = 0x01,
    health = 0x02,
    firmware_slot = 0x03,
    changed_namespaces = 0x04,
    command_effects = 0x05,
    self_test = 0x06,
    telemetry_host = 0x07,
    telemetry_controller = 0x08,
    endurance_group = 0x09,
    ana = 0x0c,
    persistent_event = 0x0d,
    feature_effects = 0x12,
    discovery = 0x70,
    reservation_notification = 0x80,
    sanitize_status = 0x81,
};

// The parameters of Get Log Page (Base 5.16): CDW10 to CDW13, taken apart.
struct log_request {
    log_page id{};
    uint8_t specific = 0;       // LSP
    bool retain_event = false;  // RAE: reading does not re-arm the event
    uint64_t length = 0;        // bytes, a multiple of 4
    uint64_t offset = 0;        // bytes

    static constexpr log_request decode(const sqe& c) noexcept {
        const uint32_t dw10 = c.cdw10, dw11 = c.cdw11;
        const uint64_t dwords = (static_cast<uint64_t>(dw11 & 0xffff) << 16 | dw10 >> 16) + 1;
        return {.id = static_cast<log_page>(dw10 & 0xff),
                .specific = static_cast<uint8_t>(dw10 >> 8 & 0x7f),
                .retain_event = (dw10 & 0x8000) != 0,
                .length = dwords * 4,
                .offset = c.cdw12.get() | static_cast<uint64_t>(c.cdw13.get()) << 32};
    }
    constexpr void encode(sqe& c) const noexcept {
        const uint64_t dwords = length / 4 - 1;
        c.cdw10 = raw(id) | static_cast<uint32_t>(specific & 0x7f) << 8 | (retain_event ? 0x8000u : 0u) |
                  static_cast<uint32_t>(dwords & 0xffff) << 16;
        c.cdw11 = static_cast<uint32_t>(dwords >> 16 & 0xffff);
        c.cdw12 = static_cast<uint32_t>(offset);
        c.cdw13 = static_cast<uint32_t>(offset >> 32);
    }
};

struct supported_log_pages {  // 00h, Base 5.16.1.1
    le32 pages[256];          // bit 0: supported; bit 1: index offsets
};
static_assert(sizeof(supported_log_pages) == 1024);

struct error_log_entry {  // 01h, Base 5.16.1.2
    le64 error_count;
    le16 sqid;
    le16 cid;
    le16 status_field;
    le16 parameter_location;
    le64 lba;
    le32 nsid;
    uint8_t vendor_log_page;
    uint8_t transport_type;
    uint8_t reserved30[2];
    le64 command_specific;
    le16 transport_specific;
    uint8_t reserved42[22];
};
static_assert(sizeof(error_log_entry) == 64 && offsetof(error_log_entry, lba) == 16);
static_assert(offsetof(error_log_entry, command_specific) == 32);

struct health_log {  // 02h, Base 5.16.1.3; counters are 128 bits, low half first
    uint8_t critical_warning;
    le16 temperature_kelvin;
    uint8_t available_spare;
    uint8_t spare_threshold;
    uint8_t percentage_used;
    uint8_t endurance_group_warning;
    uint8_t reserved7[25];
    le64 data_units_read[2];  // 1000 units of 512 bytes
    le64 data_units_written[2];
    le64 host_reads[2];
    le64 host_writes[2];
    le64 controller_busy_minutes[2];
    le64 power_cycles[2];
    le64 power_on_hours[2];
    le64 unsafe_shutdowns[2];
    le64 media_errors[2];
    le64 error_log_entries[2];
    le32 warning_temperature_minutes;
    le32 critical_temperature_minutes;
    le16 temperature_sensors[8];
    uint8_t reserved216[296];
};
static_assert(sizeof(health_log) == 512 && offsetof(health_log, data_units_read) == 32);
static_assert(offsetof(health_log, warning_temperature_minutes) == 192);

struct firmware_log {      // 03h, Base 5.16.1.4
    uint8_t active_slots;  // AFI: active in bits 2:0, next after a reset in bits 6:4
    uint8_t reserved1[7];
    char revisions[7][8];
    uint8_t reserved64[448];
};
static_assert(sizeof(firmware_log) == 512);

struct changed_namespaces_log {  // 04h, Base 5.16.1.5: ascending, ended by 0; all changed: first is ffffffffh alone
    le32 ids[1024];
};
static_assert(sizeof(changed_namespaces_log) == 4096);

namespace command_effect {  // 05h, Base 5.16.1.6
constexpr uint32_t supported = 1u << 0, changes_blocks = 1u << 1, changes_namespace = 1u << 2,
                   changes_inventory = 1u << 3, changes_controller = 1u << 4;
}
struct command_effects_log {
    le32 admin[256];
    le32 io[256];
    uint8_t reserved2048[2048];
};
static_assert(sizeof(command_effects_log) == 4096 && offsetof(command_effects_log, io) == 1024);

enum class ana_state : uint8_t {
    optimized = 0x1,
    non_optimized = 0x2,
    inaccessible = 0x3,
    persistent_loss = 0x4,
    change = 0xf,
};
constexpr uint8_t ana_log_groups_only = 1;  // LSP bit 0: descriptors without namespace ids

struct ana_log_header {  // 0Ch, Base 5.16.1.13; group descriptors follow
    le64 change_count;
    le16 group_count;
    uint8_t reserved10[6];
};
static_assert(sizeof(ana_log_header) == 16);

struct ana_group {  // followed by namespace_count ids of four bytes
    le32 group_id;
    le32 namespace_count;
    le64 change_count;
    uint8_t state;  // bits 3:0
    uint8_t reserved17[15];
};
static_assert(sizeof(ana_group) == 32 && offsetof(ana_group, state) == 16);

// ---- Discovery (70h, Base 5.16.1.23) ----

enum class transport_type : uint8_t { rdma = 1, fibre_channel = 2, tcp = 3, intra_host = 254 };
enum class address_family : uint8_t {
    none = 0,
    ipv4 = 1,
    ipv6 = 2,
    infiniband = 3,
    fibre_channel = 4,
    intra_host = 254
};
enum class subsystem_type : uint8_t { referral = 1, nvm = 2, current_discovery = 3 };
enum class secure_channel : uint8_t { not_specified = 0, required = 1, not_required = 2 };
enum class tcp_security : uint8_t { none = 0, tls_1_2 = 1, tls_1_3 = 2 };

namespace discovery_flags {
constexpr uint16_t duplicate_information = 1 << 0, persistent_connection = 1 << 1;
}
constexpr uint16_t controller_id_dynamic = 0xffff, controller_id_static = 0xfffe;

struct discovery_header {
    le64 generation;
    le64 record_count;
    le16 record_format;
    uint8_t reserved18[1006];
};
static_assert(sizeof(discovery_header) == 1024 && offsetof(discovery_header, record_format) == 16);

struct discovery_entry {
    uint8_t trtype;
    uint8_t adrfam;
    uint8_t subtype;
    uint8_t treq;  // secure channel in bits 1:0
    le16 portid;
    le16 cntlid;
    le16 asqsz;
    le16 eflags;
    uint8_t reserved12[20];
    char trsvcid[32];  // text, padded with spaces
    uint8_t reserved64[192];
    char subnqn[256];   // text, ended by 0
    char traddr[256];   // text, padded with spaces
    uint8_t tsas[256];  // TCP: byte 0 is tcp_security
};
static_assert(sizeof(discovery_entry) == 1024 && offsetof(discovery_entry, trsvcid) == 32);
static_assert(offsetof(discovery_entry, subnqn) == 256 && offsetof(discovery_entry, traddr) == 512);
static_assert(offsetof(discovery_entry, tsas) == 768);

struct reservation_notification {  // 80h, Base 5.16.1.24
    le64 log_count;
    uint8_t type;  // 1 registration preempted, 2 reservation released, 3 reservation preempted
    uint8_t available;
    uint8_t reserved10[2];
    le32 nsid;
    uint8_t reserved16[48];
};
static_assert(sizeof(reservation_notification) == 64 && offsetof(reservation_notification, nsid) == 12);

}  // namespace varve::nvme
