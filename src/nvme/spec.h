// What every NVMe command and completion is made of, as it lies in memory and on the wire. Facts from the NVM Express
// Base Specification 2.0 ("Base") and the NVM Command Set Specification 1.0 ("NVM"); each structure names its clause.
// All members have alignment 1, so a structure may be read in place at any address. Reserved bytes keep their names out
// of the way (`reserved...`) and are zero when we write them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "util/endian.h"

namespace varve::nvme {

template <class Enum>
    requires std::is_enum_v<Enum>
constexpr std::underlying_type_t<Enum> raw(Enum value) noexcept {
    return static_cast<std::underlying_type_t<Enum>>(value);
}

// ---- Scatter gather list (Base 4.1.2) ----

enum class sgl_type : uint8_t {
    data_block = 0x0,
    bit_bucket = 0x1,
    segment = 0x2,
    last_segment = 0x3,
    keyed_data_block = 0x4,
    transport_data_block = 0x5,
    vendor = 0xf,
};

enum class sgl_subtype : uint8_t {
    address = 0x0,
    offset = 0x1,  // from the start of the in-capsule data
    transport = 0xa,
};

struct sgl_descriptor {
    le64 address;  // or an offset, by the subtype
    le32 length;
    uint8_t reserved12[3];
    uint8_t identifier;  // type in bits 7:4, subtype in bits 3:0

    constexpr sgl_type type() const noexcept { return static_cast<sgl_type>(identifier >> 4); }
    constexpr sgl_subtype subtype() const noexcept { return static_cast<sgl_subtype>(identifier & 0xf); }
    static constexpr uint8_t identifier_of(sgl_type t, sgl_subtype s) noexcept {
        return static_cast<uint8_t>(raw(t) << 4 | raw(s));
    }
    // Data that lies in the command capsule, `offset` bytes after its in-capsule data begins.
    static constexpr sgl_descriptor in_capsule(uint32_t length, uint64_t offset = 0) noexcept {
        return {.address = offset,
                .length = length,
                .reserved12 = {},
                .identifier = identifier_of(sgl_type::data_block, sgl_subtype::offset)};
    }
    // Data that the transport moves by its own means (C2HData, H2CData).
    static constexpr sgl_descriptor by_transport(uint32_t length) noexcept {
        return {.address = 0,
                .length = length,
                .reserved12 = {},
                .identifier = identifier_of(sgl_type::transport_data_block, sgl_subtype::transport)};
    }
    static constexpr sgl_descriptor at_address(sgl_type t, uint64_t address, uint32_t length) noexcept {
        return {.address = address,
                .length = length,
                .reserved12 = {},
                .identifier = identifier_of(t, sgl_subtype::address)};
    }
};
static_assert(sizeof(sgl_descriptor) == 16 && alignof(sgl_descriptor) == 1);
static_assert(offsetof(sgl_descriptor, length) == 8 && offsetof(sgl_descriptor, identifier) == 15);

// ---- Submission queue entry (Base 3.3.3.1) ----

enum class fuse : uint8_t { none = 0, first = 1, second = 2 };

// PSDT, bits 7:6 of byte 1: how the data pointer is to be read. Fabrics use SGLs only.
enum class data_pointer : uint8_t { prp = 0, sgl = 1, sgl_with_metadata_sgl = 2 };

constexpr uint32_t nsid_all = 0xffffffff;

struct sqe {
    uint8_t opcode;
    uint8_t flags;  // FUSE in bits 1:0, PSDT in bits 7:6
    le16 cid;
    le32 nsid;
    le32 cdw2;
    le32 cdw3;
    le64 mptr;
    sgl_descriptor dptr;  // or PRP entries: prp1 where its address is, prp2 in the other eight bytes
    le32 cdw10;
    le32 cdw11;
    le32 cdw12;
    le32 cdw13;
    le32 cdw14;
    le32 cdw15;

    constexpr fuse fused() const noexcept { return static_cast<fuse>(flags & 0x3); }
    constexpr data_pointer psdt() const noexcept { return static_cast<data_pointer>(flags >> 6); }
    constexpr void set_flags(fuse f, data_pointer p) noexcept { flags = static_cast<uint8_t>(raw(f) | raw(p) << 6); }

    // Reads, writes, compares, write zeroes, copies (NVM 3.2): the first block, and blocks counted from 0.
    constexpr uint64_t slba() const noexcept { return cdw10.get() | static_cast<uint64_t>(cdw11.get()) << 32; }
    constexpr void set_slba(uint64_t lba) noexcept {
        cdw10 = static_cast<uint32_t>(lba);
        cdw11 = static_cast<uint32_t>(lba >> 32);
    }
    constexpr uint32_t blocks() const noexcept { return (cdw12.get() & 0xffff) + 1; }
};
static_assert(sizeof(sqe) == 64 && alignof(sqe) == 1 && std::is_trivially_copyable_v<sqe>);
static_assert(offsetof(sqe, cid) == 2 && offsetof(sqe, nsid) == 4 && offsetof(sqe, mptr) == 16);
static_assert(offsetof(sqe, dptr) == 24 && offsetof(sqe, cdw10) == 40 && offsetof(sqe, cdw15) == 60);

// Another view of the same bytes: fabrics commands out of entries, responses into them.
template <class To, class From>
    requires(sizeof(To) == sizeof(From))
constexpr To view_as(const From& from) noexcept {
    return std::bit_cast<To>(from);
}

// ---- Opcodes (Base 5 and 7, NVM 3) ----

enum class admin_opcode : uint8_t {
    delete_io_sq = 0x00,
    create_io_sq = 0x01,
    get_log_page = 0x02,
    delete_io_cq = 0x04,
    create_io_cq = 0x05,
    identify = 0x06,
    abort = 0x08,
    set_features = 0x09,
    get_features = 0x0a,
    async_event_request = 0x0c,
    namespace_management = 0x0d,
    firmware_commit = 0x10,
    firmware_download = 0x11,
    device_self_test = 0x14,
    namespace_attachment = 0x15,
    keep_alive = 0x18,
    directive_send = 0x19,
    directive_receive = 0x1a,
    virtualization_management = 0x1c,
    mi_send = 0x1d,
    mi_receive = 0x1e,
    doorbell_buffer_config = 0x7c,
    fabrics = 0x7f,
    format_nvm = 0x80,
    security_send = 0x81,
    security_receive = 0x82,
    sanitize = 0x84,
    get_lba_status = 0x86,
};

enum class nvm_opcode : uint8_t {
    flush = 0x00,
    write = 0x01,
    read = 0x02,
    write_uncorrectable = 0x04,
    compare = 0x05,
    write_zeroes = 0x08,
    dataset_management = 0x09,
    verify = 0x0c,
    reservation_register = 0x0d,
    reservation_report = 0x0e,
    reservation_acquire = 0x11,
    io_management_receive = 0x12,
    reservation_release = 0x15,
    copy = 0x19,
    io_management_send = 0x1d,
    fabrics = 0x7f,
};

// Bits 1:0 of every opcode (Base 3.3.3.1): which way its data goes.
enum class data_direction : uint8_t { none = 0, to_controller = 1, to_host = 2, both = 3 };
constexpr data_direction direction_of(uint8_t opcode) noexcept { return static_cast<data_direction>(opcode & 0x3); }

// ---- Bits of command dwords ----

namespace cdw12 {                                 // read, write, compare, write zeroes (NVM 3.2)
constexpr uint32_t blocks_mask = 0xffff;          // NLB, from 0
constexpr uint32_t deallocate = 1u << 25;         // DEAC, write zeroes
constexpr uint32_t prinfo_mask = 0xfu << 26;      // PRINFO: action in the top bit
constexpr uint32_t force_unit_access = 1u << 30;  // FUA
constexpr uint32_t limited_retry = 1u << 31;      // LR
}  // namespace cdw12

// Dataset management (NVM 3.2.3): CDW10 holds the number of ranges from 0; CDW11 these attributes.
namespace dsm {
constexpr uint32_t integral_read = 1u << 0, integral_write = 1u << 1, deallocate = 1u << 2;
constexpr uint32_t ranges_max = 256;
}  // namespace dsm

struct dsm_range {
    le32 attributes;
    le32 blocks;  // counted from 1
    le64 slba;
};
static_assert(sizeof(dsm_range) == 16 && offsetof(dsm_range, slba) == 8);

// Copy, descriptor format 0 (NVM 3.2.2). The command's CDW10/11 is the destination; CDW12 the ranges, from 0, and
// format.
struct copy_range {
    uint8_t reserved0[8];
    le64 slba;
    le16 blocks;  // from 0
    uint8_t reserved18[6];
    le32 expected_reference_tag;
    le16 expected_application_tag;
    le16 application_tag_mask;
};
static_assert(sizeof(copy_range) == 32 && offsetof(copy_range, slba) == 8 && offsetof(copy_range, blocks) == 16);
static_assert(offsetof(copy_range, expected_reference_tag) == 24);

constexpr uint32_t copy_range_count(uint32_t dw12) noexcept { return (dw12 & 0xff) + 1; }
constexpr uint32_t copy_format(uint32_t dw12) noexcept { return dw12 >> 8 & 0xf; }

// ---- Completion queue entry and status (Base 3.3.3.2) ----

enum class status_type : uint8_t { generic = 0, command = 1, media = 2, path = 3, vendor = 7 };

// Status code type in bits 10:8, status code in bits 7:0.
enum class status : uint16_t {
    success = 0x000,
    invalid_opcode = 0x001,
    invalid_field = 0x002,
    command_id_conflict = 0x003,
    data_transfer_error = 0x004,
    aborted_power_loss = 0x005,
    internal_error = 0x006,
    aborted_by_request = 0x007,
    aborted_sq_deletion = 0x008,
    aborted_failed_fused = 0x009,
    aborted_missing_fused = 0x00a,
    invalid_namespace_or_format = 0x00b,
    command_sequence_error = 0x00c,
    invalid_sgl_segment = 0x00d,
    invalid_sgl_count = 0x00e,
    data_sgl_length_invalid = 0x00f,
    metadata_sgl_length_invalid = 0x010,
    sgl_type_invalid = 0x011,
    invalid_cmb_use = 0x012,
    invalid_prp_offset = 0x013,
    atomic_write_unit_exceeded = 0x014,
    operation_denied = 0x015,
    invalid_sgl_offset = 0x016,
    host_id_inconsistent = 0x018,
    keep_alive_expired = 0x019,
    keep_alive_invalid = 0x01a,
    aborted_preempt = 0x01b,
    sanitize_failed = 0x01c,
    sanitize_in_progress = 0x01d,
    sgl_granularity_invalid = 0x01e,
    command_in_cmb_unsupported = 0x01f,
    namespace_write_protected = 0x020,
    command_interrupted = 0x021,
    transient_transport_error = 0x022,
    prohibited_by_lockdown = 0x023,
    media_not_ready = 0x024,
    lba_out_of_range = 0x080,
    capacity_exceeded = 0x081,
    namespace_not_ready = 0x082,
    reservation_conflict = 0x083,
    format_in_progress = 0x084,

    completion_queue_invalid = 0x100,
    invalid_queue_id = 0x101,
    invalid_queue_size = 0x102,
    abort_limit_exceeded = 0x103,
    async_event_limit_exceeded = 0x105,
    invalid_firmware_slot = 0x106,
    invalid_firmware_image = 0x107,
    invalid_interrupt_vector = 0x108,
    invalid_log_page = 0x109,
    invalid_format = 0x10a,
    firmware_needs_conventional_reset = 0x10b,
    invalid_queue_deletion = 0x10c,
    feature_not_saveable = 0x10d,
    feature_not_changeable = 0x10e,
    feature_not_namespace_specific = 0x10f,
    firmware_needs_subsystem_reset = 0x110,
    firmware_needs_controller_reset = 0x111,
    firmware_needs_time = 0x112,
    firmware_activation_prohibited = 0x113,
    overlapping_range = 0x114,
    namespace_insufficient_capacity = 0x115,
    namespace_id_unavailable = 0x116,
    namespace_already_attached = 0x118,
    namespace_private = 0x119,
    namespace_not_attached = 0x11a,
    thin_provisioning_unsupported = 0x11b,
    controller_list_invalid = 0x11c,
    self_test_in_progress = 0x11d,
    boot_partition_write_prohibited = 0x11e,
    invalid_controller_id = 0x11f,
    invalid_secondary_controller_state = 0x120,
    invalid_controller_resources = 0x121,
    invalid_resource_id = 0x122,
    sanitize_prohibited_pmr = 0x123,
    ana_group_id_invalid = 0x124,
    ana_attach_failed = 0x125,
    insufficient_capacity = 0x126,
    namespace_attach_limit_exceeded = 0x127,
    io_command_set_unsupported = 0x129,
    io_command_set_not_enabled = 0x12a,
    io_command_set_rejected = 0x12b,
    invalid_io_command_set = 0x12c,
    identifier_unavailable = 0x12d,
    conflicting_attributes = 0x180,  // NVM commands; the values overlap with those of fabrics commands below
    invalid_protection_information = 0x181,
    write_to_read_only_range = 0x182,
    command_size_limit_exceeded = 0x183,

    connect_incompatible_format = 0x180,  // Base 6, fabrics commands
    connect_controller_busy = 0x181,
    connect_invalid_parameters = 0x182,
    connect_restart_discovery = 0x183,
    connect_invalid_host = 0x184,
    discovery_restart = 0x190,
    authentication_required = 0x191,

    write_fault = 0x280,
    unrecovered_read_error = 0x281,
    guard_check_error = 0x282,
    application_tag_check_error = 0x283,
    reference_tag_check_error = 0x284,
    compare_failure = 0x285,
    access_denied = 0x286,
    deallocated_or_unwritten = 0x287,
    storage_tag_check_error = 0x288,

    internal_path_error = 0x300,
    ana_persistent_loss = 0x301,
    ana_inaccessible = 0x302,
    ana_transition = 0x303,
    controller_path_error = 0x360,
    host_path_error = 0x370,
    aborted_by_host = 0x371,
};

constexpr status_type type_of(status s) noexcept { return static_cast<status_type>(raw(s) >> 8 & 0x7); }
constexpr uint8_t code_of(status s) noexcept { return static_cast<uint8_t>(raw(s)); }
constexpr status status_from(status_type type, uint8_t code) noexcept {
    return static_cast<status>(raw(type) << 8 | code);
}

// The status field of an entry: phase in bit 0, code and type in bits 11:1, CRD 13:12, more in bit 14, do-not-retry
// in 15.
constexpr uint16_t make_status(status s, bool dnr = false) noexcept {
    return static_cast<uint16_t>(raw(s) << 1 | (dnr ? 0x8000 : 0));
}

struct cqe {
    le32 cdw0;
    le32 cdw1;
    le16 sqhd;
    le16 sqid;  // reserved over fabrics
    le16 cid;
    le16 status_field;

    constexpr status code() const noexcept { return static_cast<status>(status_field.get() >> 1 & 0x7ff); }
    constexpr bool dnr() const noexcept { return (status_field.get() & 0x8000) != 0; }
    constexpr bool more() const noexcept { return (status_field.get() & 0x4000) != 0; }
    constexpr bool ok() const noexcept { return (status_field.get() & 0x0ffe) == 0; }
};
static_assert(sizeof(cqe) == 16 && alignof(cqe) == 1 && std::is_trivially_copyable_v<cqe>);
static_assert(offsetof(cqe, sqhd) == 8 && offsetof(cqe, cid) == 12 && offsetof(cqe, status_field) == 14);

// ---- Features (Base 5.27) ----

enum class feature : uint8_t {
    arbitration = 0x01,
    power_management = 0x02,
    temperature_threshold = 0x04,
    error_recovery = 0x05,
    volatile_write_cache = 0x06,
    number_of_queues = 0x07,
    interrupt_coalescing = 0x08,
    interrupt_vector_config = 0x09,
    write_atomicity = 0x0a,
    async_event_config = 0x0b,
    autonomous_power_state = 0x0c,
    host_memory_buffer = 0x0d,
    timestamp = 0x0e,
    keep_alive_timer = 0x0f,
    host_behavior = 0x16,
    sanitize_config = 0x17,
    io_command_set_profile = 0x19,
    software_progress_marker = 0x80,
    host_identifier = 0x81,
    reservation_notification_mask = 0x82,
    reservation_persistence = 0x83,
    namespace_write_protect = 0x84,
};

enum class feature_select : uint8_t { current = 0, initial = 1, saved = 2, supported = 3 };  // Get Features, CDW10 10:8
constexpr uint32_t feature_save = 1u << 31;                                                  // Set Features, CDW10 SV

// Number of queues, CDW11 of the command and CDW0 of the answer: submission and completion queues, both from 0.
constexpr uint32_t number_of_queues(uint16_t submission, uint16_t completion) noexcept {
    return static_cast<uint32_t>(submission - 1) | static_cast<uint32_t>(completion - 1) << 16;
}

// ---- Asynchronous events (Base 5.2) ----

enum class event_type : uint8_t { error = 0, health = 1, notice = 2, immediate = 3, command_set = 6, vendor = 7 };

namespace event_info {
constexpr uint8_t error_persistent_internal = 3, error_transient_internal = 4;
constexpr uint8_t health_reliability = 0, health_temperature = 1, health_spare = 2;
constexpr uint8_t notice_namespace_changed = 0x00, notice_firmware_activation = 0x01, notice_telemetry = 0x02,
                  notice_ana_change = 0x03, notice_discovery_change = 0xf0;
constexpr uint8_t command_set_reservation = 0, command_set_sanitize_completed = 1;
}  // namespace event_info

// CDW0 of the completion.
struct async_event {
    event_type type{};
    uint8_t info = 0;
    uint8_t log_page = 0;

    constexpr uint32_t encode() const noexcept {
        return raw(type) | static_cast<uint32_t>(info) << 8 | static_cast<uint32_t>(log_page) << 16;
    }
    static constexpr async_event decode(uint32_t dw0) noexcept {
        return {static_cast<event_type>(dw0 & 0x7), static_cast<uint8_t>(dw0 >> 8), static_cast<uint8_t>(dw0 >> 16)};
    }
    bool operator==(const async_event&) const = default;
};

// Feature async_event_config CDW11, and the OAES field of identify controller: which notices are wanted, or can come.
namespace event_mask {
constexpr uint32_t health = 0xff, namespace_attribute = 1u << 8, firmware_activation = 1u << 9, ana_change = 1u << 11,
                   discovery_change = 1u << 31;
}  // namespace event_mask

// ---- Reservations (Base 7.2 to 7.5) ----

enum class reservation_type : uint8_t {
    none = 0,
    write_exclusive = 1,
    exclusive_access = 2,
    write_exclusive_registrants_only = 3,
    exclusive_access_registrants_only = 4,
    write_exclusive_all_registrants = 5,
    exclusive_access_all_registrants = 6,
};
enum class reservation_acquire_action : uint8_t { acquire = 0, preempt = 1, preempt_and_abort = 2 };
enum class reservation_register_action : uint8_t { register_key = 0, unregister_key = 1, replace_key = 2 };
enum class reservation_release_action : uint8_t { release = 0, clear = 1 };
// CDW10 bits 31:30 of Reservation Register.
enum class reservation_ptpl_change : uint8_t { none = 0, clear = 2, set = 3 };

struct reservation_acquire_data {
    le64 current_key;
    le64 preempt_key;
};
static_assert(sizeof(reservation_acquire_data) == 16);

struct reservation_register_data {
    le64 current_key;
    le64 new_key;
};
static_assert(sizeof(reservation_register_data) == 16);

struct reservation_release_data {
    le64 current_key;
};
static_assert(sizeof(reservation_release_data) == 8);

struct reservation_status {  // Base 7.5; registrants follow it, in the extended form after 40 more reserved bytes
    le32 generation;
    uint8_t type;
    le16 registrants;
    uint8_t reserved7[2];
    uint8_t ptpl_state;
    uint8_t reserved10[14];
};
static_assert(sizeof(reservation_status) == 24 && offsetof(reservation_status, ptpl_state) == 9);

struct reservation_registrant {
    le16 controller_id;
    uint8_t status;  // bit 0: holds the reservation
    uint8_t reserved3[5];
    le64 host_id;
    le64 key;
};
static_assert(sizeof(reservation_registrant) == 24 && offsetof(reservation_registrant, host_id) == 8);

struct reservation_registrant_extended {
    le16 controller_id;
    uint8_t status;
    uint8_t reserved3[5];
    le64 key;
    uint8_t host_id[16];
    uint8_t reserved32[32];
};
static_assert(sizeof(reservation_registrant_extended) == 64 &&
              offsetof(reservation_registrant_extended, host_id) == 16);

}  // namespace varve::nvme
