#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include "accel/crc32c.h"
#include "accel/memory.h"

namespace varve::accel {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::vector<std::byte> pattern(std::size_t size) {
    std::vector<std::byte> bytes(size);
    uint32_t state = 1;
    for (auto& b : bytes) b = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
    return bytes;
}

// Scatters `bytes` over pieces of 0, 1, 2, ... 70 bytes and again from 0.
std::vector<iovec> scatter(std::span<std::byte> bytes) {
    std::vector<iovec> pieces;
    for (std::size_t at = 0, n = 0; at < bytes.size(); at += n, n = (n + 1) % 71) {
        n = std::min(n, bytes.size() - at);
        pieces.push_back({bytes.data() + at, n});
    }
    return pieces;
}

// A bit at a time, from the polynomial.
uint32_t reference(std::span<const std::byte> bytes) {
    uint32_t crc = ~0u;
    for (std::byte b : bytes) {
        crc ^= static_cast<uint32_t>(b);
        for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
    }
    return ~crc;
}

TEST(crc32c, known_values) {
    EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
    std::array<std::byte, 32> block{};
    EXPECT_EQ(crc32c(block), 0x8a9136aau);  // RFC 3720 B.4
    block.fill(std::byte{0xff});
    EXPECT_EQ(crc32c(block), 0x62a8ab43u);
    EXPECT_EQ(crc32c(std::span<const std::byte>{}), 0u);
}

TEST(crc32c, agrees_with_the_polynomial_at_every_size_and_alignment) {
    const auto bytes = pattern(700);
    for (std::size_t from = 0; from < 9; ++from)
        for (std::size_t n = 0; from + n <= bytes.size(); n += 1 + n / 9) {
            auto part = std::span(bytes).subspan(from, n);
            ASSERT_EQ(crc32c(part), reference(part)) << from << " " << n;
        }
}

TEST(crc32c, continues_and_gathers) {
    auto bytes = pattern(20'000);
    const uint32_t whole = crc32c(bytes);
    EXPECT_EQ(crc32c(std::span(bytes).subspan(777), crc32c(std::span(bytes).first(777))), whole);
    EXPECT_EQ(crc32c(std::span<const iovec>(scatter(bytes))), whole);
    std::vector<std::byte> target(bytes.size());
    EXPECT_EQ(copy_crc32c(target.data(), bytes), whole);
    EXPECT_EQ(target, bytes);
}

TEST(accel_memory, copies_between_scattered_and_contiguous) {
    auto source = pattern(5'000);
    std::vector<std::byte> flat(5'000), back(5'000);
    EXPECT_EQ(copy(std::span(flat), scatter(source)), 5'000u);
    EXPECT_EQ(flat, source);
    EXPECT_EQ(copy(scatter(back), std::span<const std::byte>(flat)), 5'000u);
    EXPECT_EQ(back, source);
    std::ranges::fill(back, std::byte{0});
    EXPECT_EQ(copy(scatter(std::span(back).first(4'000)), scatter(source)), 4'000u);
    EXPECT_TRUE(std::equal(back.begin(), back.begin() + 4'000, source.begin()));
    EXPECT_TRUE(all_zero(std::span(back).subspan(4'000)));
}

TEST(accel_memory, skips) {
    auto source = pattern(1'000);
    std::vector<std::byte> target(1'000);
    EXPECT_EQ(copy(scatter(target), std::span<const std::byte>(source).first(100), 333), 100u);
    EXPECT_TRUE(all_zero(std::span(target).first(333)));
    EXPECT_EQ(std::memcmp(target.data() + 333, source.data(), 100), 0);
    EXPECT_TRUE(all_zero(std::span(target).subspan(433)));
    EXPECT_EQ(copy(std::span(target), scatter(source), 900), 100u);
    EXPECT_EQ(std::memcmp(target.data(), source.data() + 900, 100), 0);
    EXPECT_EQ(copy(std::span(target), scatter(source), 1'000), 0u);
    EXPECT_EQ(copy(std::span(target), scatter(source), 2'000), 0u);
    EXPECT_EQ(total_length(scatter(source)), 1'000u);
}

TEST(accel_memory, fills_and_compares) {
    std::vector<std::byte> a(300), b(300);
    fill(scatter(a), 0xa5);
    EXPECT_EQ(a, std::vector<std::byte>(300, std::byte{0xa5}));
    EXPECT_FALSE(equal(scatter(a), scatter(b)));
    fill(scatter(b), 0xa5);
    const iovec whole{a.data(), a.size()};
    EXPECT_TRUE(equal({&whole, 1}, scatter(b)));
    b[299] = std::byte{0};
    EXPECT_FALSE(equal({&whole, 1}, scatter(b)));
}

TEST(accel_memory, all_zero_sees_each_byte) {
    std::vector<std::byte> bytes(67);
    EXPECT_TRUE(all_zero(bytes));
    EXPECT_TRUE(all_zero({}));
    for (auto& b : bytes) {
        b = std::byte{1};
        EXPECT_FALSE(all_zero(bytes));
        b = std::byte{0};
    }
}

}  // namespace
}  // namespace varve::accel
