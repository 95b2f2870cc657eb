#include "admin/json_slice.h"

#include <gtest/gtest.h>

namespace ringmaster::admin {
namespace {

TEST(JsonSlice, GivesAMembersBytesAsTheyStand) {
  EXPECT_EQ(slice_member(R"({"a":1,"payload": {"b": 1.10, "a": [1E2 , "}\"]"]} ,"z":{}})", "payload"), R"({"b": 1.10, "a": [1E2 , "}\"]"]})");
  EXPECT_EQ(slice_member(R"( {"payload":12345678901234567890123})", "payload"), "12345678901234567890123");
  EXPECT_EQ(slice_member(R"({"p\u0061yload":"x\\"})", "payload"), R"("x\\")");
  EXPECT_EQ(slice_member(R"({"payload":[]})", "payload"), "[]");
  EXPECT_EQ(slice_member(R"({"payload":1,"payload":2})", "payload"), "2");
  EXPECT_EQ(slice_member(R"({"x":{"payload":1}})", "payload"), "");
  EXPECT_EQ(slice_member("{}", "payload"), "");
}

TEST(JsonSlice, GivesAnArraysElements) {
  EXPECT_EQ(slice_elements(R"([ {"a":[1,2]}, 1.50 ,"a,b"])"), (std::vector<std::string_view>{R"({"a":[1,2]})", "1.50", R"("a,b")"}));
  EXPECT_TRUE(slice_elements("[ ]").empty());
}

// The parser takes a text with one, so it has as many elements with as without.
TEST(JsonSlice, PassesOverAByteOrderMark) {
  EXPECT_EQ(slice_member("\xEF\xBB\xBF{\"tasks\":[1,2]}", "tasks"), "[1,2]");
  EXPECT_EQ(slice_elements("\xEF\xBB\xBF [1,2]").size(), 2U);
  EXPECT_EQ(slice_value("\xEF\xBB\xBF {\"a\": [1 ]}\r\n"), "{\"a\": [1 ]}");
}

}  // namespace
}  // namespace ringmaster::admin
