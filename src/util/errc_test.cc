#include "util/errc.h"

#include <gtest/gtest.h>

#include "util/result.h"

namespace varve {
namespace {

TEST(errc, texts_are_those_that_clients_look_for) {
    EXPECT_EQ(text_of(errc::no_device), "No such device");
    EXPECT_EQ(text_of(errc::rpc_invalid_params), "Invalid parameters");
    EXPECT_EQ(fail(errc::exists, "lvol lvs/a").error().message(), "File exists: lvol lvs/a");
}

// The C library's for it is about characters.
TEST(errc, the_text_for_a_damaged_disk_speaks_of_contents) {
    EXPECT_EQ(fail(errc::bad_sequence, "super block").error().message(), "Unexpected contents: super block");
    EXPECT_EQ(rpc_code(errc::bad_sequence), -84);
}

}  // namespace
}  // namespace varve
