// Protocol data units of NVMe over TCP: NVM Express TCP Transport Specification 1.0 ("TCP"), 3.6.2.
#pragma once

#include "nvme/spec.h"

namespace varve::nvme::tcp {

enum class pdu_type : uint8_t {
    ic_req = 0x00,
    ic_resp = 0x01,
    h2c_term_req = 0x02,
    c2h_term_req = 0x03,
    capsule_cmd = 0x04,
    capsule_resp = 0x05,
    h2c_data = 0x06,
    c2h_data = 0x07,
    r2t = 0x09,
};

// Byte 1. LAST and SUCCESS belong to data PDUs only.
namespace pdu_flag {
constexpr uint8_t header_digest = 1 << 0;  // HDGSTF
constexpr uint8_t data_digest = 1 << 1;    // DDGSTF
constexpr uint8_t last = 1 << 2;           // LAST_PDU
constexpr uint8_t success = 1 << 3;        // SUCCESS: stands for a response capsule that says the command succeeded
}  // namespace pdu_flag

struct common_header {  // TCP 3.6.2.1
    uint8_t type;
    uint8_t flags;
    uint8_t hlen;  // the header alone, without its digest
    uint8_t pdo;   // from the start of the PDU to its data; 0 when there is none
    le32 plen;     // everything: header, digests, padding, data
};
static_assert(sizeof(common_header) == 8 && offsetof(common_header, plen) == 4);

constexpr uint16_t format_version = 0;  // PFV

namespace digest_enable {  // DGST of ICReq and ICResp
constexpr uint8_t header = 1 << 0, data = 1 << 1;
}

struct ic_req {  // TCP 3.6.2.2
    common_header ch;
    le16 pfv;
    uint8_t hpda;  // data of PDUs to the host begins at a multiple of (hpda + 1) * 4; 0 to 31
    uint8_t dgst;
    le32 maxr2t;  // R2Ts a command may have outstanding, from 0
    uint8_t reserved16[112];
};
static_assert(sizeof(ic_req) == 128 && offsetof(ic_req, hpda) == 10 && offsetof(ic_req, maxr2t) == 12);

struct ic_resp {  // TCP 3.6.2.3
    common_header ch;
    le16 pfv;
    uint8_t cpda;  // as hpda, for data to the controller
    uint8_t dgst;
    le32 maxh2cdata;  // data bytes in one H2CData; at least 4096, a multiple of 4
    uint8_t reserved16[112];
};
static_assert(sizeof(ic_resp) == 128 && offsetof(ic_resp, cpda) == 10 && offsetof(ic_resp, maxh2cdata) == 12);
constexpr uint8_t pda_max = 31;
constexpr uint32_t maxh2cdata_min = 4096;

enum class fatal_error : uint16_t {  // FES, TCP 3.6.2.4
    invalid_header_field = 0x01,     // FEI: offset of the field in the header
    sequence_error = 0x02,
    header_digest_error = 0x03,  // FEI: the digest received
    data_out_of_range = 0x04,
    limit_exceeded = 0x05,         // data transfer limit, or R2T limit
    unsupported_parameter = 0x06,  // FEI: offset of the field in the header
};

struct term_req {  // H2CTermReq TCP 3.6.2.4, C2HTermReq TCP 3.6.2.5; followed by the header that was wrong, as received
    common_header ch;
    le16 fes;
    le32 fei;
    uint8_t reserved14[10];
};
static_assert(sizeof(term_req) == 24 && offsetof(term_req, fei) == 10);
constexpr uint32_t term_data_max = 128;
constexpr uint32_t term_pdu_max = sizeof(term_req) + term_data_max;

struct capsule_cmd {  // TCP 3.6.2.6
    common_header ch;
    sqe command;
};
static_assert(sizeof(capsule_cmd) == 72 && offsetof(capsule_cmd, command) == 8);

struct capsule_resp {  // TCP 3.6.2.7
    common_header ch;
    cqe completion;
};
static_assert(sizeof(capsule_resp) == 24);

struct h2c_data {  // TCP 3.6.2.8
    common_header ch;
    le16 cccid;
    le16 ttag;
    le32 datao;
    le32 datal;
    uint8_t reserved20[4];
};
static_assert(sizeof(h2c_data) == 24 && offsetof(h2c_data, ttag) == 10 && offsetof(h2c_data, datal) == 16);

struct c2h_data {  // TCP 3.6.2.9
    common_header ch;
    le16 cccid;
    uint8_t reserved10[2];
    le32 datao;
    le32 datal;
    uint8_t reserved20[4];
};
static_assert(sizeof(c2h_data) == 24 && offsetof(c2h_data, datao) == 12 && offsetof(c2h_data, datal) == 16);

struct r2t {  // TCP 3.6.2.10
    common_header ch;
    le16 cccid;
    le16 ttag;
    le32 r2to;
    le32 r2tl;
    uint8_t reserved20[4];
};
static_assert(sizeof(r2t) == 24 && offsetof(r2t, ttag) == 10 && offsetof(r2t, r2to) == 12);

// ---- Lengths ----

constexpr uint32_t digest_size = 4;  // CRC-32C, little-endian

// What each type's HLEN must be; 0 for a type that does not exist.
constexpr uint8_t header_length(pdu_type type) noexcept {
    switch (type) {
        case pdu_type::ic_req:
        case pdu_type::ic_resp:
            return sizeof(ic_req);
        case pdu_type::h2c_term_req:
        case pdu_type::c2h_term_req:
            return sizeof(term_req);
        case pdu_type::capsule_cmd:
            return sizeof(capsule_cmd);
        case pdu_type::capsule_resp:
            return sizeof(capsule_resp);
        case pdu_type::h2c_data:
        case pdu_type::c2h_data:
        case pdu_type::r2t:
            return sizeof(r2t);
    }
    return 0;
}

// Digests of a connection as negotiated: bits as in pdu_flag.
// PDO of a PDU with data: the header and its digest, rounded up to the receiver's alignment (HPDA or CPDA,
// TCP 3.6.2.1).
constexpr uint8_t data_offset(uint32_t header, bool header_digest, uint8_t pda) noexcept {
    const uint32_t alignment = (pda + 1u) * 4;
    const uint32_t end = header + (header_digest ? digest_size : 0);
    return static_cast<uint8_t>((end + alignment - 1) / alignment * alignment);
}
// PLEN of a PDU with `data` bytes at `pdo`.
constexpr uint32_t pdu_length(uint32_t pdo, uint32_t data, bool data_digest) noexcept {
    return pdo + data + (data_digest ? digest_size : 0);
}

constexpr uint16_t default_port = 4420, discovery_port = 8009;

}  // namespace varve::nvme::tcp
