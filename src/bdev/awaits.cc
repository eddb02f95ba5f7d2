#include "bdev/awaits.h"

#include <fmt/format.h>

#include "bdev/device.h"

namespace varve::bdev {

errc code_of(status s) noexcept {
    switch (s) {
        case status::ok:
            return errc::ok;
        case status::invalid:
            return errc::invalid;
        case status::unsupported:
            return errc::unsupported;
        case status::out_of_range:
            return errc::range;
        case status::read_only:
            return errc::read_only;
        case status::no_space:
            return errc::no_space;
        case status::compare_failed:
            return errc::bad_sequence;
        case status::aborted:
            return errc::cancelled;
        case status::no_device:
            return errc::no_device;
        case status::no_memory:
            return errc::no_memory;
        case status::conflict:
            return errc::busy;
        default:
            return errc::io;
    }
}

std::string_view text_of(status s) noexcept {
    constexpr std::string_view texts[] = {"ok",
                                          "failed",
                                          "invalid request",
                                          "operation not supported",
                                          "beyond the end",
                                          "read-only",
                                          "no space",
                                          "media error",
                                          "compare failed",
                                          "aborted",
                                          "no such device",
                                          "no memory",
                                          "reservation conflict"};
    static_assert(std::size(texts) == status_count);
    auto index = static_cast<unsigned>(s);
    return index < status_count ? texts[index] : "NVMe error";
}

std::string_view name_of(op o) noexcept {
    constexpr std::string_view names[] = {
        "read", "write", "flush",      "unmap",   "write_zeroes", "compare",  "compare_and_write",
        "copy", "reset", "nvme_admin", "nvme_io", "seek_data",    "seek_hole"};
    static_assert(std::size(names) == static_cast<unsigned>(op::count));
    return o < op::count ? names[static_cast<unsigned>(o)] : "unknown";
}

namespace {

std::string describe(const channel& on, op what, uint64_t lba, uint64_t blocks, status s) {
    std::string text = fmt::format("{} of bdev {}", name_of(what), on.owner().name());
    if (blocks != 0) text += fmt::format(", blocks {}..{}", lba, lba + blocks - 1);
    text += fmt::format(": {}", text_of(s));
    if (static_cast<unsigned>(s) >= status_count) text += fmt::format(" 0x{:x}", static_cast<unsigned>(s) & 0x7fff);
    return text;
}

// The range is kept beside the request, whose own may have been changed on the way.
task<> submit_and_check(channel& on, op what, uint64_t lba, uint64_t blocks, std::span<iovec> memory, uint8_t flags = 0,
                        uint64_t source = 0) {
    if (blocks > UINT32_MAX) co_await fail(errc::invalid, "too many blocks for one request");
    io r;
    r.operation = what;
    r.lba = lba;
    r.blocks = static_cast<uint32_t>(blocks);
    r.flags = flags;
    r.iov = memory.data();
    r.iov_count = static_cast<uint32_t>(memory.size());
    if (what == op::copy) r.source_lba = source;
    status s = co_await submit(on, r);
    if (s != status::ok) co_await fail(code_of(s), describe(on, what, lba, blocks, s));
}

task<> transfer(channel& on, op what, uint64_t lba, std::byte* data, std::size_t size, uint8_t flags = 0) {
    uint32_t block = on.owner().block_size();
    if (size % block != 0) co_await fail(errc::invalid, fmt::format("{} bytes are no whole blocks of {}", size, block));
    iovec memory{data, size};
    co_await submit_and_check(on, what, lba, size / block, {&memory, 1}, flags);
}

// Requests carry iovecs, which know no const; writing operations only read through them.
std::byte* data_of(std::span<const std::byte> memory) { return const_cast<std::byte*>(memory.data()); }

}  // namespace

task<> read(channel& on, uint64_t lba, std::span<std::byte> memory) {
    return transfer(on, op::read, lba, memory.data(), memory.size());
}
task<> write(channel& on, uint64_t lba, std::span<const std::byte> memory, uint8_t flags) {
    return transfer(on, op::write, lba, data_of(memory), memory.size(), flags);
}
task<> compare(channel& on, uint64_t lba, std::span<const std::byte> memory) {
    return transfer(on, op::compare, lba, data_of(memory), memory.size());
}

task<> compare_and_write(channel& on, uint64_t lba, std::span<const std::byte> expected,
                         std::span<const std::byte> replacement) {
    uint32_t block = on.owner().block_size();
    if (expected.size() != replacement.size() || expected.size() % block != 0) {
        co_await fail(errc::invalid, "both sides must be as many whole blocks");
    }
    iovec memory[] = {{data_of(expected), expected.size()}, {data_of(replacement), replacement.size()}};
    co_await submit_and_check(on, op::compare_and_write, lba, expected.size() / block, memory);
}

task<> flush(channel& on) { return submit_and_check(on, op::flush, 0, 0, {}); }
task<> unmap(channel& on, uint64_t lba, uint32_t blocks) { return submit_and_check(on, op::unmap, lba, blocks, {}); }
task<> write_zeroes(channel& on, uint64_t lba, uint32_t blocks) {
    return submit_and_check(on, op::write_zeroes, lba, blocks, {});
}
task<> copy(channel& on, uint64_t source, uint64_t lba, uint32_t blocks) {
    return submit_and_check(on, op::copy, lba, blocks, {}, 0, source);
}
namespace {
task<uint64_t> seek(channel& on, op what, uint64_t lba) {
    io r;
    r.operation = what;
    r.lba = lba;
    r.blocks = 1;
    status s = co_await submit(on, r);
    if (s != status::ok) co_await fail(code_of(s), describe(on, what, lba, 1, s));
    co_return r.found;
}
}  // namespace
task<uint64_t> seek_data(channel& on, uint64_t lba) { return seek(on, op::seek_data, lba); }
task<uint64_t> seek_hole(channel& on, uint64_t lba) { return seek(on, op::seek_hole, lba); }
task<> reset(channel& on) { return submit_and_check(on, op::reset, 0, 0, {}); }

}  // namespace varve::bdev
