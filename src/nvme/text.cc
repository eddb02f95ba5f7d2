#include "nvme/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace varve::nvme {

namespace {

template <class Enum>
struct named {
    Enum value;
    std::string_view text;
};

// Ordered by value where the enumerations are; looked up by walking, as these are for messages.
constexpr auto statuses = std::to_array<named<status>>({
    {status::success, "success"},
    {status::invalid_opcode, "invalid opcode"},
    {status::invalid_field, "invalid field in command"},
    {status::command_id_conflict, "command identifier in use"},
    {status::data_transfer_error, "data transfer error"},
    {status::aborted_power_loss, "aborted: power loss"},
    {status::internal_error, "internal error"},
    {status::aborted_by_request, "aborted by request"},
    {status::aborted_sq_deletion, "aborted: its queue was deleted"},
    {status::aborted_failed_fused, "aborted: the other fused command failed"},
    {status::aborted_missing_fused, "aborted: the other fused command is missing"},
    {status::invalid_namespace_or_format, "invalid namespace or format"},
    {status::command_sequence_error, "command sequence error"},
    {status::invalid_sgl_segment, "invalid SGL segment descriptor"},
    {status::invalid_sgl_count, "invalid number of SGL descriptors"},
    {status::data_sgl_length_invalid, "invalid data SGL length"},
    {status::metadata_sgl_length_invalid, "invalid metadata SGL length"},
    {status::sgl_type_invalid, "invalid SGL descriptor type"},
    {status::invalid_cmb_use, "invalid use of controller memory buffer"},
    {status::invalid_prp_offset, "invalid PRP offset"},
    {status::atomic_write_unit_exceeded, "atomic write unit exceeded"},
    {status::operation_denied, "operation denied"},
    {status::invalid_sgl_offset, "invalid SGL offset"},
    {status::host_id_inconsistent, "inconsistent host identifier format"},
    {status::keep_alive_expired, "keep-alive timer expired"},
    {status::keep_alive_invalid, "invalid keep-alive timeout"},
    {status::aborted_preempt, "aborted: preempted"},
    {status::sanitize_failed, "sanitize failed"},
    {status::sanitize_in_progress, "sanitize in progress"},
    {status::sgl_granularity_invalid, "invalid SGL data block granularity"},
    {status::command_in_cmb_unsupported, "command in controller memory buffer unsupported"},
    {status::namespace_write_protected, "namespace is write protected"},
    {status::command_interrupted, "command interrupted"},
    {status::transient_transport_error, "transient transport error"},
    {status::prohibited_by_lockdown, "prohibited by lockdown"},
    {status::media_not_ready, "media not ready"},
    {status::lba_out_of_range, "LBA out of range"},
    {status::capacity_exceeded, "capacity exceeded"},
    {status::namespace_not_ready, "namespace not ready"},
    {status::reservation_conflict, "reservation conflict"},
    {status::format_in_progress, "format in progress"},
    {status::completion_queue_invalid, "invalid completion queue"},
    {status::invalid_queue_id, "invalid queue identifier"},
    {status::invalid_queue_size, "invalid queue size"},
    {status::abort_limit_exceeded, "abort limit exceeded"},
    {status::async_event_limit_exceeded, "asynchronous event request limit exceeded"},
    {status::invalid_firmware_slot, "invalid firmware slot"},
    {status::invalid_firmware_image, "invalid firmware image"},
    {status::invalid_interrupt_vector, "invalid interrupt vector"},
    {status::invalid_log_page, "invalid log page"},
    {status::invalid_format, "invalid format"},
    {status::firmware_needs_conventional_reset, "firmware needs a conventional reset"},
    {status::invalid_queue_deletion, "invalid queue deletion"},
    {status::feature_not_saveable, "feature cannot be saved"},
    {status::feature_not_changeable, "feature cannot be changed"},
    {status::feature_not_namespace_specific, "feature is not specific to a namespace"},
    {status::firmware_needs_subsystem_reset, "firmware needs a subsystem reset"},
    {status::firmware_needs_controller_reset, "firmware needs a controller reset"},
    {status::firmware_needs_time, "firmware activation needs more time"},
    {status::firmware_activation_prohibited, "firmware activation prohibited"},
    {status::overlapping_range, "overlapping range"},
    {status::namespace_insufficient_capacity, "insufficient capacity for the namespace"},
    {status::namespace_id_unavailable, "namespace identifier unavailable"},
    {status::namespace_already_attached, "namespace already attached"},
    {status::namespace_private, "namespace is private"},
    {status::namespace_not_attached, "namespace not attached"},
    {status::thin_provisioning_unsupported, "thin provisioning unsupported"},
    {status::controller_list_invalid, "invalid controller list"},
    {status::self_test_in_progress, "self-test in progress"},
    {status::boot_partition_write_prohibited, "boot partition write prohibited"},
    {status::invalid_controller_id, "invalid controller identifier"},
    {status::invalid_secondary_controller_state, "invalid secondary controller state"},
    {status::invalid_controller_resources, "invalid number of controller resources"},
    {status::invalid_resource_id, "invalid resource identifier"},
    {status::sanitize_prohibited_pmr, "sanitize prohibited: persistent memory region enabled"},
    {status::ana_group_id_invalid, "invalid ANA group identifier"},
    {status::ana_attach_failed, "ANA attach failed"},
    {status::insufficient_capacity, "insufficient capacity"},
    {status::namespace_attach_limit_exceeded, "namespace attachment limit exceeded"},
    {status::io_command_set_unsupported, "I/O command set unsupported"},
    {status::io_command_set_not_enabled, "I/O command set not enabled"},
    {status::io_command_set_rejected, "I/O command set combination rejected"},
    {status::invalid_io_command_set, "invalid I/O command set"},
    {status::identifier_unavailable, "identifier unavailable"},
    // 180h to 183h mean one thing for connect and another for NVM commands; both are said.
    {status::conflicting_attributes, "conflicting attributes, or incompatible connect format"},
    {status::invalid_protection_information, "invalid protection information, or controller busy"},
    {status::write_to_read_only_range, "write to a read-only range, or invalid connect parameters"},
    {status::command_size_limit_exceeded, "command size limit exceeded, or restart discovery"},
    {status::connect_invalid_host, "host not allowed"},
    {status::discovery_restart, "discovery information changed: restart"},
    {status::authentication_required, "authentication required"},
    {status::write_fault, "write fault"},
    {status::unrecovered_read_error, "unrecovered read error"},
    {status::guard_check_error, "end-to-end guard check error"},
    {status::application_tag_check_error, "end-to-end application tag check error"},
    {status::reference_tag_check_error, "end-to-end reference tag check error"},
    {status::compare_failure, "compare failure"},
    {status::access_denied, "access denied"},
    {status::deallocated_or_unwritten, "deallocated or unwritten block"},
    {status::storage_tag_check_error, "end-to-end storage tag check error"},
    {status::internal_path_error, "internal path error"},
    {status::ana_persistent_loss, "asymmetric access: persistent loss"},
    {status::ana_inaccessible, "asymmetric access: inaccessible"},
    {status::ana_transition, "asymmetric access: transition"},
    {status::controller_path_error, "controller path error"},
    {status::host_path_error, "host path error"},
    {status::aborted_by_host, "aborted by host"},
});

constexpr auto admin_opcodes = std::to_array<named<admin_opcode>>({
    {admin_opcode::delete_io_sq, "delete I/O submission queue"},
    {admin_opcode::create_io_sq, "create I/O submission queue"},
    {admin_opcode::get_log_page, "get log page"},
    {admin_opcode::delete_io_cq, "delete I/O completion queue"},
    {admin_opcode::create_io_cq, "create I/O completion queue"},
    {admin_opcode::identify, "identify"},
    {admin_opcode::abort, "abort"},
    {admin_opcode::set_features, "set features"},
    {admin_opcode::get_features, "get features"},
    {admin_opcode::async_event_request, "asynchronous event request"},
    {admin_opcode::namespace_management, "namespace management"},
    {admin_opcode::firmware_commit, "firmware commit"},
    {admin_opcode::firmware_download, "firmware image download"},
    {admin_opcode::device_self_test, "device self-test"},
    {admin_opcode::namespace_attachment, "namespace attachment"},
    {admin_opcode::keep_alive, "keep alive"},
    {admin_opcode::directive_send, "directive send"},
    {admin_opcode::directive_receive, "directive receive"},
    {admin_opcode::virtualization_management, "virtualization management"},
    {admin_opcode::mi_send, "NVMe-MI send"},
    {admin_opcode::mi_receive, "NVMe-MI receive"},
    {admin_opcode::doorbell_buffer_config, "doorbell buffer config"},
    {admin_opcode::fabrics, "fabrics command"},
    {admin_opcode::format_nvm, "format NVM"},
    {admin_opcode::security_send, "security send"},
    {admin_opcode::security_receive, "security receive"},
    {admin_opcode::sanitize, "sanitize"},
    {admin_opcode::get_lba_status, "get LBA status"},
});

constexpr auto nvm_opcodes = std::to_array<named<nvm_opcode>>({
    {nvm_opcode::flush, "flush"},
    {nvm_opcode::write, "write"},
    {nvm_opcode::read, "read"},
    {nvm_opcode::write_uncorrectable, "write uncorrectable"},
    {nvm_opcode::compare, "compare"},
    {nvm_opcode::write_zeroes, "write zeroes"},
    {nvm_opcode::dataset_management, "dataset management"},
    {nvm_opcode::verify, "verify"},
    {nvm_opcode::reservation_register, "reservation register"},
    {nvm_opcode::reservation_report, "reservation report"},
    {nvm_opcode::reservation_acquire, "reservation acquire"},
    {nvm_opcode::io_management_receive, "I/O management receive"},
    {nvm_opcode::reservation_release, "reservation release"},
    {nvm_opcode::copy, "copy"},
    {nvm_opcode::io_management_send, "I/O management send"},
    {nvm_opcode::fabrics, "fabrics command"},
});

template <class Enum, std::size_t N>
std::string_view find(const std::array<named<Enum>, N>& table, Enum value, std::string_view otherwise) noexcept {
    auto at = std::ranges::find(table, value, &named<Enum>::value);
    return at == table.end() ? otherwise : at->text;
}

}  // namespace

std::string_view text_of(status s) noexcept { return find(statuses, s, "unknown status"); }
std::string_view text_of(admin_opcode o) noexcept { return find(admin_opcodes, o, "unknown admin command"); }
std::string_view text_of(nvm_opcode o) noexcept { return find(nvm_opcodes, o, "unknown I/O command"); }

std::string describe(status s) { return fmt::format("{} ({}/{:02x}h)", text_of(s), raw(type_of(s)), code_of(s)); }

std::string_view opcode_text(uint8_t opcode, bool admin) noexcept {
    return admin ? text_of(static_cast<admin_opcode>(opcode)) : text_of(static_cast<nvm_opcode>(opcode));
}

std::string_view trimmed(std::string_view field) noexcept {
    field = field.substr(0, field.find('\0'));
    const std::size_t last = field.find_last_not_of(' ');
    return last == std::string_view::npos ? std::string_view{} : field.substr(0, last + 1);
}

void pad_with_spaces(char* field, std::size_t size, std::string_view text) noexcept {
    const std::size_t n = std::min(size, text.size());
    std::memcpy(field, text.data(), n);
    std::memset(field + n, ' ', size - n);
}

bool pad_with_zeroes(char* field, std::size_t size, std::string_view text) noexcept {
    if (text.size() >= size) return false;
    std::memcpy(field, text.data(), text.size());
    std::memset(field + text.size(), 0, size - text.size());
    return true;
}

}  // namespace varve::nvme
