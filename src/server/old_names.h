// Names that methods had in the past (SPDK up to 20.01) and under which scripts still call them. An entry counts when
// the present method is there.
#pragma once

#include <utility>

namespace varve::server {

inline constexpr std::pair<const char*, const char*> old_names[] = {
    {"kill_instance", "spdk_kill_instance"},
    {"get_rpc_methods", "rpc_get_methods"},
    {"get_spdk_version", "spdk_get_version"},
    {"start_subsystem_init", "framework_start_init"},
    {"wait_subsystem_init", "framework_wait_init"},
    {"get_subsystems", "framework_get_subsystems"},
    {"get_subsystem_config", "framework_get_config"},
    {"context_switch_monitor", "framework_monitor_context_switch"},
    {"set_log_flag", "log_set_flag"},
    {"clear_log_flag", "log_clear_flag"},
    {"get_log_flags", "log_get_flags"},
    {"set_log_level", "log_set_level"},
    {"get_log_level", "log_get_level"},
    {"set_log_print_level", "log_set_print_level"},
    {"get_log_print_level", "log_get_print_level"},
    {"get_notification_types", "notify_get_types"},
    {"get_notifications", "notify_get_notifications"},
    {"set_iobuf_options", "iobuf_set_options"},
    {"set_bdev_options", "bdev_set_options"},
    {"get_bdevs", "bdev_get_bdevs"},
    {"get_bdevs_iostat", "bdev_get_iostat"},
    {"enable_bdev_histogram", "bdev_enable_histogram"},
    {"get_bdev_histogram", "bdev_get_histogram"},
    {"set_bdev_qos_limit", "bdev_set_qos_limit"},
    {"set_bdev_qd_sampling_period", "bdev_set_qd_sampling_period"},
    {"construct_null_bdev", "bdev_null_create"},
    {"delete_null_bdev", "bdev_null_delete"},
    {"construct_malloc_bdev", "bdev_malloc_create"},
    {"delete_malloc_bdev", "bdev_malloc_delete"},
    {"construct_aio_bdev", "bdev_aio_create"},
    {"delete_aio_bdev", "bdev_aio_delete"},
    {"construct_uring_bdev", "bdev_uring_create"},
    {"delete_uring_bdev", "bdev_uring_delete"},
    {"construct_passthru_bdev", "bdev_passthru_create"},
    {"delete_passthru_bdev", "bdev_passthru_delete"},
    {"set_nvmf_target_max_subsystems", "nvmf_set_max_subsystems"},
    {"set_nvmf_target_config", "nvmf_set_config"},
    {"get_nvmf_subsystems", "nvmf_get_subsystems"},
    {"nvmf_subsystem_create", "nvmf_create_subsystem"},
    {"delete_nvmf_subsystem", "nvmf_delete_subsystem"},
    {"get_nvmf_transports", "nvmf_get_transports"},
};

}  // namespace varve::server
