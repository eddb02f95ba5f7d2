// nvmf_create_transport, nvmf_get_transports and the target's own settings.
#include <fmt/core.h>

#include "targets/nvmf/methods/params.h"
#include "targets/nvmf/methods/service.h"

namespace varve::targets::nvmf {

namespace {

// SPDK's parameters with its defaults for TCP. Those that belong to other transports are taken and have no effect.
struct transport_params {
    std::string trtype;
    std::optional<std::string> tgt_name;
    uint16_t max_queue_depth = 128, max_io_qpairs_per_ctrlr = 127;
    uint32_t in_capsule_data_size = 4096, max_io_size = 131072, io_unit_size = 131072, max_aq_depth = 128;
    uint32_t num_shared_buffers = 511;
    std::optional<uint32_t> buf_cache_size, iobuf_small_cache_size, iobuf_large_cache_size;
    bool dif_insert_or_strip = false, zcopy = false, c2h_success = true;
    uint32_t sock_priority = 0, abort_timeout_sec = 1, ack_timeout = 0, data_wr_pool_size = 0;
    bool disable_command_passthru = false;
    uint16_t kas = 100;
    uint32_t min_kato = 10000;
    uint16_t control_msg_num = 32;
    std::optional<int32_t> num_cqe, acceptor_backlog;
    std::optional<uint32_t> max_srq_depth, acceptor_poll_rate;
    std::optional<bool> no_srq, no_wr_batching, disable_mappable_bar0, disable_adaptive_irq, disable_shadow_doorbells;
    std::optional<json::value> masked_oncs, masked_fuses;
    static constexpr auto fields = std::tuple{
        rpc::required(&transport_params::trtype, "trtype", "Transport: TCP"),
        rpc::optional(&transport_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
        rpc::optional(&transport_params::max_queue_depth, "max_queue_depth", "Entries an I/O queue may have",
                      rpc::range<2, 65535>),
        rpc::optional(&transport_params::max_io_qpairs_per_ctrlr, "max_io_qpairs_per_ctrlr",
                      "I/O queues of a controller", rpc::range<1, 65534>, rpc::alias("max_qpairs_per_ctrlr")),
        rpc::optional(&transport_params::in_capsule_data_size, "in_capsule_data_size",
                      "Bytes a command capsule may carry", rpc::range<0, 131072>, rpc::multiple_of<16>),
        rpc::optional(&transport_params::max_io_size, "max_io_size", "Largest transfer in bytes",
                      rpc::range<8192, 16777216>, rpc::power_of_two),
        rpc::optional(&transport_params::io_unit_size, "io_unit_size",
                      "Bytes in a buffer; buffers are as large as the transfer here"),
        rpc::optional(&transport_params::max_aq_depth, "max_aq_depth", "Entries an admin queue may have",
                      rpc::range<32, 4096>),
        rpc::optional(&transport_params::num_shared_buffers, "num_shared_buffers",
                      "Without effect: memory is taken as needed"),
        rpc::optional(&transport_params::buf_cache_size, "buf_cache_size", "Without effect: memory is taken as needed"),
        rpc::optional(&transport_params::iobuf_small_cache_size, "iobuf_small_cache_size", "Without effect"),
        rpc::optional(&transport_params::iobuf_large_cache_size, "iobuf_large_cache_size", "Without effect"),
        rpc::optional(&transport_params::dif_insert_or_strip, "dif_insert_or_strip",
                      "Keep protection information from hosts; not offered yet"),
        rpc::optional(&transport_params::zcopy, "zcopy", "Without effect"),
        rpc::optional(&transport_params::c2h_success, "c2h_success",
                      "Leave out responses that only say success, when the host allows it"),
        rpc::optional(&transport_params::sock_priority, "sock_priority", "Without effect"),
        rpc::optional(&transport_params::abort_timeout_sec, "abort_timeout_sec",
                      "Seconds an abort waits for its command"),
        rpc::optional(&transport_params::ack_timeout, "ack_timeout", "Without effect"),
        rpc::optional(&transport_params::data_wr_pool_size, "data_wr_pool_size", "RDMA: without effect"),
        rpc::optional(&transport_params::disable_command_passthru, "disable_command_passthru", "Without effect"),
        rpc::optional(&transport_params::kas, "kas", "Steps of the keep-alive timer in 100 ms", rpc::positive),
        rpc::optional(&transport_params::min_kato, "min_kato", "Shortest keep-alive interval in milliseconds"),
        rpc::optional(&transport_params::control_msg_num, "control_msg_num", "Without effect"),
        rpc::optional(&transport_params::num_cqe, "num_cqe", "RDMA: without effect"),
        rpc::optional(&transport_params::acceptor_backlog, "acceptor_backlog", "Without effect"),
        rpc::optional(&transport_params::max_srq_depth, "max_srq_depth", "RDMA: without effect"),
        rpc::optional(&transport_params::acceptor_poll_rate, "acceptor_poll_rate",
                      "Without effect: connections wake the target"),
        rpc::optional(&transport_params::no_srq, "no_srq", "RDMA: without effect"),
        rpc::optional(&transport_params::no_wr_batching, "no_wr_batching", "RDMA: without effect"),
        rpc::optional(&transport_params::disable_mappable_bar0, "disable_mappable_bar0", "vfio-user: without effect"),
        rpc::optional(&transport_params::disable_adaptive_irq, "disable_adaptive_irq", "vfio-user: without effect"),
        rpc::optional(&transport_params::disable_shadow_doorbells, "disable_shadow_doorbells",
                      "vfio-user: without effect"),
        rpc::optional(&transport_params::masked_oncs, "masked_oncs", "Without effect"),
        rpc::optional(&transport_params::masked_fuses, "masked_fuses", "Without effect"),
    };
};

transport_options to_options(const transport_params& p) {
    transport_options o;
    o.trtype = p.trtype;
    o.max_queue_depth = p.max_queue_depth;
    o.max_io_qpairs_per_ctrlr = p.max_io_qpairs_per_ctrlr;
    o.in_capsule_data_size = p.in_capsule_data_size;
    o.max_io_size = p.max_io_size;
    o.max_aq_depth = p.max_aq_depth;
    o.dif_insert_or_strip = p.dif_insert_or_strip;
    o.zcopy = p.zcopy;
    o.c2h_success = p.c2h_success;
    o.sock_priority = p.sock_priority;
    o.abort_timeout_sec = p.abort_timeout_sec;
    o.ack_timeout = p.ack_timeout;
    o.data_wr_pool_size = p.data_wr_pool_size;
    o.disable_command_passthru = p.disable_command_passthru;
    o.kas = p.kas;
    o.min_kato = p.min_kato;
    return o;
}

json::object describe(const transport_options& o) {
    constexpr uint32_t not_set = UINT32_MAX;
    return {{"trtype", o.trtype},
            {"max_queue_depth", o.max_queue_depth},
            {"max_io_qpairs_per_ctrlr", o.max_io_qpairs_per_ctrlr},
            {"in_capsule_data_size", o.in_capsule_data_size},
            {"max_io_size", o.max_io_size},
            {"max_aq_depth", o.max_aq_depth},
            {"iobuf_small_cache_size", not_set},
            {"iobuf_large_cache_size", not_set},
            {"dif_insert_or_strip", o.dif_insert_or_strip},
            {"zcopy", o.zcopy},
            {"c2h_success", o.c2h_success},
            {"sock_priority", o.sock_priority},
            {"abort_timeout_sec", o.abort_timeout_sec},
            {"ack_timeout", o.ack_timeout},
            {"data_wr_pool_size", o.data_wr_pool_size},
            {"disable_command_passthru", o.disable_command_passthru},
            {"kas", o.kas},
            {"min_kato", o.min_kato}};
}

task<> create_transport(target& t, transport_params p) {
    co_await check_target_name(t, p.tgt_name);
    if (p.dif_insert_or_strip) co_await fail(errc::rpc_invalid_params, "dif_insert_or_strip: not offered yet");
    co_await t.create_transport(to_options(p));
}

struct get_params {
    std::optional<std::string> tgt_name, trtype;
    static constexpr auto fields = std::tuple{
        rpc::optional(&get_params::tgt_name, "tgt_name", "Target; there is nvmf_tgt"),
        rpc::optional(&get_params::trtype, "trtype", "Only this transport"),
    };
};

result<json::value> get_transports(target& t, get_params p) {
    if (p.tgt_name && *p.tgt_name != t.name()) return fail(error(errc::rpc_internal, "Unable to find a target."));
    json::array list;
    if (p.trtype) {
        transport* one = t.find_transport(*p.trtype);
        if (one == nullptr) return fail(errc::no_device, fmt::format("there is no transport {}", *p.trtype));
        list.push_back(describe(one->options()));
        return list;
    }
    for (auto& each : t.transports) list.push_back(describe(each->options()));
    return list;
}

}  // namespace

void add_transport_methods(rpc::registry& methods, target& t) {
    methods.add(rpc::make_method("nvmf_create_transport", "Offer a transport to hosts", create_transport).bind(t));
    methods.add(rpc::make_method("nvmf_get_transports", "Transports and their settings", get_transports).bind(t));
}

void add_transport_config(std::vector<rpc::call>& to, const target& t) {
    for (auto& each : t.transports) to.push_back({"nvmf_create_transport", describe(each->options())});
}

}  // namespace varve::targets::nvmf
