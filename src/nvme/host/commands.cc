#include "nvme/host/commands.h"

#include <fmt/format.h>

#include "nvme/text.h"

namespace varve::nvme::host {

errc errc_of(status s) noexcept {
    switch (s) {
        case status::success:
            return errc::ok;
        case status::invalid_opcode:
        case status::invalid_log_page:
        case status::io_command_set_unsupported:
            return errc::unsupported;
        case status::invalid_field:
        case status::invalid_queue_id:
        case status::invalid_queue_size:
            return errc::invalid;
        case status::invalid_namespace_or_format:
            return errc::no_device;
        case status::lba_out_of_range:
            return errc::range;
        case status::capacity_exceeded:
        case status::namespace_insufficient_capacity:
            return errc::no_space;
        case status::namespace_write_protected:
        case status::write_to_read_only_range:
            return errc::read_only;
        case status::reservation_conflict:
        case status::access_denied:
        case status::operation_denied:
        case status::connect_invalid_host:
        case status::authentication_required:
            return errc::access;
        case status::compare_failure:
            return errc::bad_sequence;
        case status::guard_check_error:
        case status::application_tag_check_error:
        case status::reference_tag_check_error:
            return errc::bad_message;
        case status::namespace_not_ready:
        case status::command_interrupted:
        case status::ana_transition:
            return errc::again;
        case status::aborted_by_host:
        case status::host_path_error:
        case status::aborted_sq_deletion:
            return errc::not_connected;
        case status::aborted_by_request:
            return errc::cancelled;
        default:
            return errc::io;
    }
}

result<> outcome_of(const request& r, std::string_view what) {
    if (r.ok()) return {};
    return varve::fail(errc_of(r.code()), fmt::format("{}: {}", what, describe(r.code())));
}

}  // namespace varve::nvme::host
