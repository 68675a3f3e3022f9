#include "server/grpc_status.h"

#include <gtest/gtest.h>

#include <string>

namespace hilomoe {
namespace {

TEST(GrpcStatusTest, KeepsCodeAndMessage) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("model 'x'"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "model 'x'");
  EXPECT_EQ(ToGrpcStatus(absl::ResourceExhaustedError("")).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ToGrpcStatus(absl::UnauthenticatedError("")).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ToGrpcStatus(absl::DataLossError("")).error_code(), grpc::StatusCode::DATA_LOSS);
}

TEST(GrpcStatusTest, CutsLongMessagesBetweenCharacters) {
  for (size_t lead = 0; lead < 2; ++lead) {
    std::string message(lead, 'a');
    for (int i = 0; i < 4000; ++i) message += "\xC3\xA9";  // e with an acute accent
    const std::string cut = ToGrpcStatus(absl::InvalidArgumentError(message)).error_message();
    EXPECT_LE(cut.size(), kMaxStatusMessageBytes);
    EXPECT_GE(cut.size(), kMaxStatusMessageBytes - 1);
    EXPECT_EQ(cut.substr(cut.size() - 5), "\xC3\xA9...");
  }
}

}  // namespace
}  // namespace hilomoe
