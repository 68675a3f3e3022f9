// A scoring server on loopback that computes something simple from the columns it gets.
#ifndef HILOMOE_TESTS_TOOLS_CLIENT_FAKE_SERVER_H_
#define HILOMOE_TESTS_TOOLS_CLIENT_FAKE_SERVER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "hilomoe/v1/scoring_service.grpc.pb.h"

namespace hilomoe {

// Model "toy", version 3: user (1, CONTEXT, INT64), item (2, CANDIDATE, INT64), tags (3, CANDIDATE, BAG of STRING).
// The score of a candidate is FakeScore of its ids; a missing id is 0. Requests whose columns are not as column.proto
// says are INTERNAL errors.
float FakeScore(int64_t user, int64_t item, size_t tags);

class FakeServer final : public v1::ScoringService::Service {
 public:
  // Looked at before a request is scored; not OK: the answer. May change the answer that is there.
  using Hook = std::function<grpc::Status(grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse*)>;

  explicit FakeServer(Hook hook = nullptr);
  ~FakeServer() override;

  const std::string& address() const { return address_; }
  v1::GetModelResponse* model() { return &model_; }  // before the first call

  std::vector<v1::ScoreRequest> requests() const;  // in the order of arrival, each attempt
  int most_at_a_time() const;

  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;

 private:
  Hook hook_;
  v1::GetModelResponse model_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
  mutable std::mutex mutex_;
  std::vector<v1::ScoreRequest> requests_;
  int now_ = 0;
  int most_ = 0;
};

// The first value of a candidate's item column; for hooks that pick rows.
int64_t FirstItem(const v1::ScoreRequest& request);

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_TOOLS_CLIENT_FAKE_SERVER_H_
