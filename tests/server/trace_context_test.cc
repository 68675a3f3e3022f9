#include "server/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace hilomoe {
namespace {

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";

std::string Header(const std::string& version, const std::string& trace, const std::string& span,
                   const std::string& flags) {
  return version + "-" + trace + "-" + span + "-" + flags;
}

TEST(TraceContextTest, ReadsWhatTheStandardAllows) {
  for (const std::string& header : {Header("00", kTrace, kSpan, "01"), Header("cc", kTrace, kSpan, "01"),
                                    Header("01", kTrace, kSpan, "01-what the future brings")}) {
    const auto context = ParseTraceparent(header);
    ASSERT_TRUE(context.has_value()) << header;
    EXPECT_EQ(context->trace_id, kTrace);
    EXPECT_EQ(context->span_id, kSpan);
    EXPECT_EQ(context->flags, "01");
  }
}

TEST(TraceContextTest, AllElseIsNothing) {
  const std::string good = Header("00", kTrace, kSpan, "01");
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(ParseTraceparent(good.substr(0, n))) << n;
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char c : {'A', 'g', '\0', ' ', '\xff'}) {
      std::string bad = good;
      bad[i] = c;
      EXPECT_FALSE(ParseTraceparent(bad)) << bad;
    }
    std::string bad = good;
    bad[i] = bad[i] == '-' ? '0' : '-';
    EXPECT_FALSE(ParseTraceparent(bad)) << bad;
  }
  for (const std::string& bad :
       {Header("ff", kTrace, kSpan, "01"), Header("00", std::string(32, '0'), kSpan, "01"),
        Header("00", kTrace, std::string(16, '0'), "01"), Header("00", kTrace, kSpan, "01-more"), good + " ",
        " " + good, Header("01", kTrace, kSpan, "01.more"), good + "," + good}) {
    EXPECT_FALSE(ParseTraceparent(bad)) << bad;
  }
}

}  // namespace
}  // namespace hilomoe
