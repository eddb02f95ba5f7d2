// Data structures of the Identify command (Base 5.17; NVM 4.1.5).
#pragma once

#include "nvme/spec.h"

namespace varve::nvme {

// CNS, CDW10 bits 7:0.
enum class cns : uint8_t {
    active_namespace = 0x00,  // identify_namespace of one
    controller = 0x01,
    active_namespace_list = 0x02,  // ids greater than the command's NSID
    namespace_descriptors = 0x03,  // namespace_descriptor list
    command_set_namespace = 0x05,  // by CSI, CDW11 bits 31:24
    command_set_controller = 0x06,
    command_set_active_list = 0x07,
    independent_namespace = 0x08,
    allocated_namespace_list = 0x10,
    allocated_namespace = 0x11,
    attached_controller_list = 0x12,
    controller_list = 0x13,
    primary_capabilities = 0x14,
    secondary_list = 0x15,
    uuid_list = 0x17,
    command_set_allocated_list = 0x1a,
    command_set_allocated = 0x1b,
    command_sets = 0x1c,
};

enum class command_set : uint8_t { nvm = 0, key_value = 1, zoned = 2 };  // CSI

enum class controller_type : uint8_t { not_reported = 0, io = 1, discovery = 2, administrative = 3 };

constexpr std::size_t identify_size = 4096;

struct power_state {  // Base 5.17.2.1
    le16 maximum_power;
    uint8_t reserved2;
    uint8_t flags;
    le32 entry_latency_us;
    le32 exit_latency_us;
    uint8_t relative_read_throughput;
    uint8_t relative_read_latency;
    uint8_t relative_write_throughput;
    uint8_t relative_write_latency;
    le16 idle_power;
    uint8_t idle_power_scale;
    uint8_t reserved19;
    le16 active_power;
    uint8_t active_power_workload_scale;
    uint8_t reserved23[9];
};
static_assert(sizeof(power_state) == 32);

// Bits of identify_controller's fields.
namespace cmic {
constexpr uint8_t multiple_ports = 1 << 0, multiple_controllers = 1 << 1, ana_reporting = 1 << 3;
}
namespace ctratt {
constexpr uint32_t host_id_128 = 1u << 0, traffic_based_keep_alive = 1u << 6, extended_lba_formats = 1u << 15;
}
namespace oacs {
constexpr uint16_t security = 1 << 0, format = 1 << 1, firmware = 1 << 2, namespace_management = 1 << 3;
}
namespace lpa {
constexpr uint8_t smart_per_namespace = 1 << 0, command_effects = 1 << 1, extended_data = 1 << 2;
}
namespace oncs {
constexpr uint16_t compare = 1 << 0, write_uncorrectable = 1 << 1, dataset_management = 1 << 2, write_zeroes = 1 << 3,
                   save_select = 1 << 4, reservations = 1 << 5, timestamp = 1 << 6, verify = 1 << 7, copy = 1 << 8;
}
namespace fuses {
constexpr uint16_t compare_and_write = 1 << 0;
}
namespace vwc {
constexpr uint8_t present = 1 << 0;
constexpr uint8_t flush_all_unsupported = 2 << 1, flush_all_supported = 3 << 1;  // flush with NSID ffffffffh
}  // namespace vwc
namespace sgls {
constexpr uint32_t supported = 1u << 0, keyed = 1u << 2, bit_bucket = 1u << 16, metadata_pointer = 1u << 17,
                   oversized = 1u << 18, offset = 1u << 20, transport_data_block = 1u << 21;
}
namespace anacap {
constexpr uint8_t optimized = 1 << 0, non_optimized = 1 << 1, inaccessible = 1 << 2, persistent_loss = 1 << 3,
                  change = 1 << 4, group_id_never_changes = 1 << 6, nonzero_group_id = 1 << 7;
}
constexpr uint16_t ofcs_disconnect = 1 << 0;

struct identify_controller {  // CNS 01h, Base 5.17.2.1
    le16 vid;
    le16 ssvid;
    char sn[20];  // text fields are padded with spaces, not terminated
    char mn[40];
    char fr[8];
    uint8_t rab;
    uint8_t ieee[3];
    uint8_t cmic;
    uint8_t mdts;  // power of two, in units of CAP.MPSMIN; 0: no limit
    le16 cntlid;
    le32 ver;
    le32 rtd3r;
    le32 rtd3e;
    le32 oaes;
    le32 ctratt;
    le16 rrls;
    uint8_t reserved102[9];
    uint8_t cntrltype;
    uint8_t fguid[16];
    le16 crdt[3];
    uint8_t reserved134[119];
    uint8_t nvmsr;
    uint8_t vwci;
    uint8_t mec;
    le16 oacs;
    uint8_t acl;
    uint8_t aerl;  // from 0
    uint8_t frmw;
    uint8_t lpa;
    uint8_t elpe;  // from 0
    uint8_t npss;  // from 0
    uint8_t avscc;
    uint8_t apsta;
    le16 wctemp;
    le16 cctemp;
    le16 mtfa;
    le32 hmpre;
    le32 hmmin;
    le64 tnvmcap[2];
    le64 unvmcap[2];
    le32 rpmbs;
    le16 edstt;
    uint8_t dsto;
    uint8_t fwug;
    le16 kas;  // granularity of the keep-alive timer in 100 ms; 0: none
    le16 hctma;
    le16 mntmt;
    le16 mxtmt;
    le32 sanicap;
    le32 hmminds;
    le16 hmmaxd;
    le16 nsetidmax;
    le16 endgidmax;
    uint8_t anatt;
    uint8_t anacap;
    le32 anagrpmax;
    le32 nanagrpid;
    le32 pels;
    le16 domain_id;
    uint8_t reserved358[10];
    uint8_t megcap[16];
    uint8_t reserved384[128];
    uint8_t sqes;  // minimum in bits 3:0, maximum in bits 7:4, powers of two
    uint8_t cqes;
    le16 maxcmd;
    le32 nn;
    le16 oncs;
    le16 fuses;
    uint8_t fna;
    uint8_t vwc;
    le16 awun;   // from 0
    le16 awupf;  // from 0
    uint8_t nvscc;
    uint8_t nwpc;
    le16 acwu;  // from 0
    le16 ocfs;  // copy descriptor formats: bit n for format n
    le32 sgls;
    le32 mnan;
    uint8_t maxdna[16];
    le32 maxcna;
    uint8_t reserved564[204];
    char subnqn[256];
    uint8_t reserved1024[768];
    le32 ioccsz;  // fabrics from here (Base 5.17.2.1): capsule sizes in 16 bytes, the command included
    le32 iorcsz;
    le16 icdoff;    // in 16 bytes
    uint8_t fcatt;  // bit 0: static controllers
    uint8_t msdbd;  // SGL data block descriptors a command may carry; 0: no limit
    le16 ofcs;
    uint8_t reserved1806[242];
    power_state psd[32];
    uint8_t vendor[1024];
};
static_assert(sizeof(identify_controller) == identify_size && alignof(identify_controller) == 1);
static_assert(offsetof(identify_controller, ieee) == 73 && offsetof(identify_controller, mdts) == 77);
static_assert(offsetof(identify_controller, ver) == 80 && offsetof(identify_controller, oaes) == 92);
static_assert(offsetof(identify_controller, cntrltype) == 111 && offsetof(identify_controller, crdt) == 128);
static_assert(offsetof(identify_controller, nvmsr) == 253 && offsetof(identify_controller, oacs) == 256);
static_assert(offsetof(identify_controller, wctemp) == 266 && offsetof(identify_controller, tnvmcap) == 280);
static_assert(offsetof(identify_controller, rpmbs) == 312 && offsetof(identify_controller, kas) == 320);
static_assert(offsetof(identify_controller, sanicap) == 328 && offsetof(identify_controller, anatt) == 342);
static_assert(offsetof(identify_controller, anagrpmax) == 344 && offsetof(identify_controller, megcap) == 368);
static_assert(offsetof(identify_controller, sqes) == 512 && offsetof(identify_controller, nn) == 516);
static_assert(offsetof(identify_controller, oncs) == 520 && offsetof(identify_controller, vwc) == 525);
static_assert(offsetof(identify_controller, acwu) == 532 && offsetof(identify_controller, sgls) == 536);
static_assert(offsetof(identify_controller, subnqn) == 768 && offsetof(identify_controller, ioccsz) == 1792);
static_assert(offsetof(identify_controller, icdoff) == 1800 && offsetof(identify_controller, msdbd) == 1803);
static_assert(offsetof(identify_controller, ofcs) == 1804 && offsetof(identify_controller, psd) == 2048);

struct lba_format {  // NVM 4.1.5.1
    le16 metadata_size;
    uint8_t data_shift;  // LBADS, a power of two
    uint8_t performance;
};
static_assert(sizeof(lba_format) == 4);

namespace nsfeat {
constexpr uint8_t thin = 1 << 0, atomics = 1 << 1, deallocated_error = 1 << 2, ids_never_reused = 1 << 3,
                  optimal_io = 1 << 4;
}
namespace dlfeat {
constexpr uint8_t reads_unreported = 0, reads_zeroes = 1, reads_ones = 2, write_zeroes_deallocates = 1 << 3;
}
constexpr uint8_t flbas_metadata_extends_blocks = 1 << 4;
constexpr uint8_t nmic_shared = 1 << 0;
constexpr uint8_t nsattr_write_protected = 1 << 0;

struct identify_namespace {  // CNS 00h, NVM 4.1.5.1
    le64 nsze;
    le64 ncap;
    le64 nuse;
    uint8_t nsfeat;
    uint8_t nlbaf;  // from 0
    uint8_t flbas;  // format index: bits 3:0, and 6:5 above them; bit 4: metadata extends the blocks
    uint8_t mc;
    uint8_t dpc;
    uint8_t dps;
    uint8_t nmic;
    uint8_t rescap;
    uint8_t fpi;
    uint8_t dlfeat;
    le16 nawun;
    le16 nawupf;
    le16 nacwu;
    le16 nabsn;
    le16 nabo;
    le16 nabspf;
    le16 noiob;
    le64 nvmcap[2];
    le16 npwg;  // from 0, as the next four
    le16 npwa;
    le16 npdg;
    le16 npda;
    le16 nows;
    le16 mssrl;
    le32 mcl;
    uint8_t msrc;  // from 0
    uint8_t reserved81[11];
    le32 anagrpid;
    uint8_t reserved96[3];
    uint8_t nsattr;
    le16 nvmsetid;
    le16 endgid;
    uint8_t nguid[16];
    uint8_t eui64[8];  // big-endian
    lba_format lbaf[64];
    uint8_t vendor[3712];

    constexpr unsigned format_index() const noexcept {
        unsigned low = flbas & 0xf;
        return nlbaf > 16 ? low | (flbas >> 5 & 0x3u) << 4 : low;
    }
};
static_assert(sizeof(identify_namespace) == identify_size && alignof(identify_namespace) == 1);
static_assert(offsetof(identify_namespace, nlbaf) == 25 && offsetof(identify_namespace, dlfeat) == 33);
static_assert(offsetof(identify_namespace, noiob) == 46 && offsetof(identify_namespace, npwg) == 64);
static_assert(offsetof(identify_namespace, mssrl) == 74 && offsetof(identify_namespace, mcl) == 76);
static_assert(offsetof(identify_namespace, msrc) == 80 && offsetof(identify_namespace, anagrpid) == 92);
static_assert(offsetof(identify_namespace, nsattr) == 99 && offsetof(identify_namespace, nguid) == 104);
static_assert(offsetof(identify_namespace, eui64) == 120 && offsetof(identify_namespace, lbaf) == 128);

// CNS 03h, Base 5.17.2.3: a chain of these, each followed by `length` bytes, ended by one of type none or the page's
// end.
enum class namespace_id_type : uint8_t { none = 0, eui64 = 1, nguid = 2, uuid = 3, command_set = 4 };
struct namespace_descriptor {
    uint8_t type;
    uint8_t length;  // 8, 16, 16, 1 by the type
    uint8_t reserved2[2];
};
static_assert(sizeof(namespace_descriptor) == 4);

// CNS 02h, 07h, 10h: ascending, ended by 0.
struct namespace_list {
    le32 ids[1024];
};
static_assert(sizeof(namespace_list) == identify_size);

// CNS 12h, 13h.
struct controller_list {
    le16 count;
    le16 ids[2047];
};
static_assert(sizeof(controller_list) == identify_size);

struct nvm_identify_namespace {  // CNS 05h, CSI 00h: NVM 4.1.5.3
    le64 storage_tag_mask;
    uint8_t pic;
    uint8_t reserved9[3];
    le32 extended_lba_formats[64];
    uint8_t reserved268[3828];
};
static_assert(sizeof(nvm_identify_namespace) == identify_size);
static_assert(offsetof(nvm_identify_namespace, extended_lba_formats) == 12);

struct nvm_identify_controller {  // CNS 06h, CSI 00h: NVM 4.1.5.4. Limits as powers of two of CAP.MPSMIN, 0: no limit
    uint8_t vsl;
    uint8_t wzsl;
    uint8_t wusl;
    uint8_t dmrl;  // ranges
    le32 dmrsl;    // blocks a range
    le64 dmsl;     // blocks a command
    uint8_t reserved16[4080];
};
static_assert(sizeof(nvm_identify_controller) == identify_size && offsetof(nvm_identify_controller, dmsl) == 8);

struct independent_identify_namespace {  // CNS 08h, Base 5.17.2.8
    uint8_t nsfeat;  // bit 3: identifiers never reused, bit 4: rotational, bit 5: no volatile write cache
    uint8_t nmic;
    uint8_t rescap;
    uint8_t fpi;
    le32 anagrpid;
    uint8_t nsattr;
    uint8_t reserved9;
    le16 nvmsetid;
    le16 endgid;
    uint8_t nstat;  // bit 0: ready
    uint8_t reserved15[4081];
};
static_assert(sizeof(independent_identify_namespace) == identify_size);
static_assert(offsetof(independent_identify_namespace, nstat) == 14);

// CNS 1Ch, Base 5.17.2.18: combinations of command sets the controller can offer, bit n for CSI n.
struct command_set_vectors {
    le64 vectors[512];
};
static_assert(sizeof(command_set_vectors) == identify_size);

}  // namespace varve::nvme
