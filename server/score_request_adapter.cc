#include "server/score_request_adapter.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "runtime/column_view.h"

namespace hilomoe {
namespace {

using google::protobuf::internal::WireFormatLite;

constexpr size_t kMaxMessageBytes = 1024;  // of an error: it may quote what the client sent

absl::Status Malformed() { return absl::InvalidArgumentError("the request's bytes are not a hilomoe.v1.ScoreRequest"); }

constexpr uint32_t Tag(int field, WireFormatLite::WireType type) { return WireFormatLite::MakeTag(field, type); }

constexpr uint32_t kModel = Tag(v1::ScoreRequest::kModelFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
constexpr uint32_t kVersion = Tag(v1::ScoreRequest::kVersionFieldNumber, WireFormatLite::WIRETYPE_VARINT);
constexpr uint32_t kLabel = Tag(v1::ScoreRequest::kLabelFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
constexpr uint32_t kNumCandidates = Tag(v1::ScoreRequest::kNumCandidatesFieldNumber, WireFormatLite::WIRETYPE_VARINT);
constexpr uint32_t kContext = Tag(v1::ScoreRequest::kContextFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
constexpr uint32_t kCandidates =
    Tag(v1::ScoreRequest::kCandidatesFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);

}  // namespace

absl::Status ScoreRequestAdapter::ReadHead(google::protobuf::io::ZeroCopyInputStream* bytes, RequestHead* head) {
  google::protobuf::io::CodedInputStream input(bytes);
  head->model.clear();
  head->version = 0;
  head->label.clear();
  head->num_candidates = 0;
  size_t columns = 0;
  // A field that stands several times counts with its last value, as for a parser.
  while (const uint32_t tag = input.ReadTag()) {
    bool good = true;
    if (tag == kModel || tag == kLabel) {
      uint32_t size = 0;
      good = input.ReadVarint32(&size);
      if (good && size > kMaxNameBytes) {
        return absl::InvalidArgumentError(absl::StrCat(tag == kModel ? "model" : "label", ": a name of ", size,
                                                       " bytes is longer than ", kMaxNameBytes));
      }
      good = good && input.ReadString(tag == kModel ? &head->model : &head->label, static_cast<int>(size));
    } else if (tag == kVersion) {
      good = input.ReadVarint64(&head->version);
    } else if (tag == kNumCandidates) {
      good = input.ReadVarint32(&head->num_candidates);
    } else {
      columns += tag == kContext || tag == kCandidates;
      good = WireFormatLite::SkipField(&input, tag);
    }
    if (!good) return Malformed();
    if (columns > kMaxColumns) {
      return absl::InvalidArgumentError(absl::StrCat("the request has more than ", kMaxColumns, " columns"));
    }
  }
  return input.ConsumedEntireMessage() ? absl::OkStatus() : Malformed();
}

absl::Status ScoreRequestAdapter::Parse(google::protobuf::io::ZeroCopyInputStream* bytes, const ModelSpec&) {
  const bool parsed = request_.ParseFromZeroCopyStream(bytes);
  parsed_bytes_ += static_cast<size_t>(bytes->ByteCount());
  if (!parsed) return Malformed();
  context_.clear();
  candidates_.clear();
  AppendColumnViews(request_.context(), &context_);
  AppendColumnViews(request_.candidates(), &candidates_);
  view_ = {request_.num_candidates(), context_, candidates_};
  return absl::OkStatus();
}

absl::Span<float> ScoreRequestAdapter::StartResponse() {
  response_.Clear();
  response_.mutable_scores()->Resize(static_cast<int>(view_.num_candidates), 0);
  return {response_.mutable_scores()->mutable_data(), view_.num_candidates};
}

const v1::ScoreResponse& ScoreRequestAdapter::FinishResponse(const ServedModel& model, const ScoreTimes& times) {
  response_.set_model(model.name());
  response_.set_version(model.version());
  if (request_.options().timings()) {
    response_.mutable_timings()->set_decode_ns(times.decode_ns);
    response_.mutable_timings()->set_encode_ns(times.encode_ns);
    response_.mutable_timings()->set_evaluate_ns(times.evaluate_ns);
  }
  return response_;
}

const v1::ScoreResponse* ScoreRequestAdapter::FailureResponse(const absl::Status& status) {
  response_.Clear();
  response_.set_code(static_cast<int32_t>(status.code()));
  absl::string_view message = status.message();
  if (message.size() > kMaxMessageBytes) {
    message = message.substr(0, kMaxMessageBytes);
    // No part of a character: the field is UTF-8.
    while (!message.empty() && (message.back() & 0x80) != 0) message.remove_suffix(1);
  }
  response_.set_message(message.data(), message.size());
  return &response_;
}

void ScoreRequestAdapter::Recycle() {
  // Measuring walks all columns: only after so many bytes that the memory may have grown past the limit.
  if (parsed_bytes_ > kMaxKeptBytes) {
    parsed_bytes_ = 0;
    if (request_.SpaceUsedLong() > kMaxKeptBytes) {
      v1::ScoreRequest empty;
      request_.Swap(&empty);
    }
  }
  request_.Clear();
}

}  // namespace hilomoe
