// A namespace as a controller described it, and block I/O on it for coroutines. A value: copy it to the thread that
// uses it; the copy keeps saying what was true when it was made.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "nvme/host/commands.h"
#include "nvme/identify.h"
#include "util/uuid.h"

namespace varve::nvme::host {

struct ns {
    uint32_t nsid = 0;
    uint32_t block_size = 0;
    uint64_t blocks = 0;
    uint32_t transfer_max = 0;  // bytes in one command, a multiple of the block size
    uint16_t metadata_size = 0;
    bool write_protected = false;
    uint32_t ana_group = 0;
    varve::uuid uuid;
    std::array<uint8_t, 16> nguid{};
    std::array<uint8_t, 8> eui64{};

    bool operator==(const ns&) const = default;

    // Nothing of what a controller says may make later arithmetic wrong.
    static result<ns> from(uint32_t nsid, const identify_namespace& data, std::span<const std::byte> descriptors,
                           uint32_t controller_transfer_max);

    // Block I/O. Memory is a multiple of the block size long; long transfers are cut into several commands, one after
    // another. Errors say which blocks.
    task<> read(queue_pair& on, uint64_t lba, std::span<std::byte> into) const;
    task<> write(queue_pair& on, uint64_t lba, std::span<const std::byte> from, bool force_unit_access = false) const;
    task<> compare(queue_pair& on, uint64_t lba, std::span<const std::byte> with) const;
    // Atomically writes `replacement` where `expected` lies, as fused commands.
    task<> compare_and_write(queue_pair& on, uint64_t lba, std::span<const std::byte> expected,
                             std::span<const std::byte> replacement) const;
    task<> write_zeroes(queue_pair& on, uint64_t lba, uint64_t count, bool deallocate = false) const;
    task<> deallocate(queue_pair& on, std::span<const dsm_range> ranges) const;
    task<> flush(queue_pair& on) const;

  private:
    task<> transfer(queue_pair& on, nvm_opcode opcode, uint64_t lba, std::span<std::byte> memory,
                    uint32_t dword12) const;
};

}  // namespace varve::nvme::host
