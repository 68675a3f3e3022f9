// ScoreRequest bytes -> RequestView.
#ifndef HILOMOE_SERVER_SCORE_REQUEST_ADAPTER_H_
#define HILOMOE_SERVER_SCORE_REQUEST_ADAPTER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "runtime/request_view.h"

namespace hilomoe {

// What admission has to know about a ScoreRequest; the values that a full parse would give.
struct ScoreRequestHead {
  std::string model;
  uint64_t version = 0;
  uint32_t num_candidates = 0;
};

// Reads the head out of a message's bytes without parsing its columns, so that refusing costs little. Bounds what
// parsing will cost: an empty column takes two bytes here and a hundred times that as a message, so a request of more
// than kMaxColumns columns is INVALID_ARGUMENT, as are bytes that are not a message and overlong model names.
inline constexpr size_t kMaxColumns = 4096;
inline constexpr size_t kMaxModelNameBytes = 256;
absl::Status ReadScoreRequestHead(google::protobuf::io::ZeroCopyInputStream* bytes, ScoreRequestHead* head);

// Parses requests and gives views of them, over and over in the same memory. One thread.
class ScoreRequestAdapter {
 public:
  // INVALID_ARGUMENT for bytes that are not a ScoreRequest.
  absl::Status Parse(google::protobuf::io::ZeroCopyInputStream* bytes);

  const v1::ScoreRequest& request() const { return request_; }
  // Valid until the next Parse or Recycle.
  const RequestView& view() const { return view_; }

  // To be called when the request is done with. Memory is kept for the next one, up to kMaxKeptBytes.
  static constexpr size_t kMaxKeptBytes = 4 << 20;
  void Recycle();

 private:
  v1::ScoreRequest request_;
  std::vector<ColumnView> context_, candidates_;
  RequestView view_;
  size_t parsed_bytes_ = 0;  // since the kept memory was last measured
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SCORE_REQUEST_ADAPTER_H_
