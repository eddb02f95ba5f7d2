// What was read of a store. Whoever reads (inspect.h, a fuzzer, the engine) fills it piece by piece and hands it to
// examine().
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>

#include "blob/format/double_write.h"
#include "blob/format/record.h"

namespace varve::blob::check {

class evidence {
  public:
    // The super block says whether there is anything more to read: store() is null when not.
    evidence(const format::device_shape& device, format::page_view super_page);

    const format::super_block* store() const noexcept { return _super ? &*_super : nullptr; }
    const format::geometry& layout() const noexcept { return _super->layout; }
    // Also why there was none, when it was rebuilt.
    const std::string& why_no_store() const noexcept { return _why_none; }
    // What store() is made of when it is not what super_page() says; empty: it is.
    const std::string& rebuilt_from() const noexcept { return _rebuilt_from; }
    bool is_of_unknown_version() const noexcept { return _unknown_version; }
    void take_super(format::super_block rebuilt, std::string from);
    void explain(std::string_view why_not_rebuilt);  // more of why there is no store
    const format::page_bytes& super_page() const noexcept { return _super_page; }

    // `bytes`: geometry::bytes_of_mask().
    void take_mask(format::mask_type type, std::span<const std::byte> bytes);
    void take_unreadable_mask(format::mask_type type, std::string_view why);
    // Metadata page `number`; clear pages may be left out.
    void take_page(uint32_t number, format::page_view bytes);
    void take_unreadable(uint32_t first_page, uint32_t count, std::string_view why);
    // That it was unloaded is not true, whatever the super block says.
    void doubt_clean() noexcept { _super->clean = false; }
    // From now on an unreadable page counts as clear: it is to be written anew.
    void give_up(uint32_t page);

    // Null: clear, or unreadable.
    const format::page_bytes* page(uint32_t number) const noexcept;
    const std::string* why_unreadable(uint32_t page) const noexcept;
    const std::map<uint32_t, format::page_bytes>& pages() const noexcept { return _pages; }
    const std::map<uint32_t, std::string>& unreadable_pages() const noexcept { return _unreadable; }
    // Pages that were given up, and why they could not be read.
    const std::map<uint32_t, std::string>& given_up() const noexcept { return _given_up; }
    // Null: could not be read (why_no_mask says why), or the store has none.
    const format::bit_mask* mask(format::mask_type type) const noexcept;
    bool mask_was_read(format::mask_type type) const noexcept { return !read(type).bytes.empty(); }
    const std::string& why_no_mask(format::mask_type type) const noexcept;
    std::span<const std::byte> mask_bytes(format::mask_type type) const noexcept;

    // The page as it lies on the device, where page() is what it will be after the double-write area was replayed.
    const format::page_bytes* original(uint32_t number) const noexcept;
    // For examine(), which replays first.
    void replace_page(uint32_t number, const format::page_bytes& bytes);

  private:
    struct mask_read {
        std::vector<std::byte> bytes;
        std::optional<format::bit_mask> bits;
        std::string why_none = "it was not read";
    };
    const mask_read& read(format::mask_type type) const noexcept { return _masks[static_cast<std::size_t>(type)]; }

    format::page_bytes _super_page;
    std::optional<format::super_block> _super;
    std::string _why_none, _rebuilt_from;
    bool _unknown_version = false;
    std::array<mask_read, 3> _masks;
    std::map<uint32_t, format::page_bytes> _pages;     // those that are not clear
    std::map<uint32_t, format::page_bytes> _replaced;  // what was there
    std::map<uint32_t, std::string> _unreadable, _given_up;
};

// Bits of a mask in this store, and where it lies.
uint32_t bits_of(format::mask_type type, const format::geometry& g) noexcept;
format::page_range region_of(format::mask_type type, const format::geometry& g) noexcept;

}  // namespace varve::blob::check
