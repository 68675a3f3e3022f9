// hilomoe.v1.ScoreRequest bytes -> RequestView; scores -> ScoreResponse.
#ifndef HILOMOE_SERVER_SCORE_REQUEST_ADAPTER_H_
#define HILOMOE_SERVER_SCORE_REQUEST_ADAPTER_H_

#include <cstddef>
#include <vector>

#include "hilomoe/v1/scoring_service.pb.h"
#include "server/wire_protocol.h"

namespace hilomoe {

class ScoreRequestAdapter : public WireProtocol {
 public:
  // An empty column takes two bytes here and a hundred times that as a message, and a field that the schema does not
  // know thirty times its own. So a request of more than kMaxColumns columns or kMaxUnknownFields such fields, at any
  // depth, is INVALID_ARGUMENT, as are groups, and names of models and labels that are overlong or not UTF-8.
  static constexpr size_t kMaxColumns = 4096;
  static constexpr size_t kMaxUnknownFields = 16384;
  static constexpr size_t kMaxNameBytes = 256;

  absl::Status ReadHead(google::protobuf::io::ZeroCopyInputStream* bytes, RequestHead* head) override;
  absl::Status Parse(google::protobuf::io::ZeroCopyInputStream* bytes, const ModelSpec& spec) override;
  const RequestView& view() const override { return view_; }
  const v1::ScoreRequest& request() const { return request_; }
  absl::Span<float> StartResponse() override;
  const v1::ScoreResponse& FinishResponse(const ServedModel& model, const ScoreTimes& times) override;
  const v1::ScoreResponse* FailureResponse(const absl::Status& status) override;
  void Recycle() override;

 private:
  v1::ScoreRequest request_;
  v1::ScoreResponse response_;
  std::vector<ColumnView> context_, candidates_;
  RequestView view_;
  size_t parsed_bytes_ = 0;  // since the kept memory was last measured
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SCORE_REQUEST_ADAPTER_H_
