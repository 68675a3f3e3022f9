#include "server/score_request_adapter.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/stubs/common.h"
#include "google/protobuf/wire_format_lite.h"
#include "runtime/column_view.h"
#include "server/utf8_prefix.h"

namespace hilomoe {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

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

// Of fields that the schema knows; anything else a parser keeps, in up to thirty times its bytes.
constexpr uint32_t kOptions = Tag(v1::ScoreRequest::kOptionsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
constexpr uint32_t kTimings = Tag(v1::ScoreRequest::Options::kTimingsFieldNumber, WireFormatLite::WIRETYPE_VARINT);
constexpr uint32_t kColumn[] = {
    Tag(v1::Column::kFeatureIdFieldNumber, WireFormatLite::WIRETYPE_VARINT),
    Tag(v1::Column::kFeatureFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
    Tag(v1::Column::kStringsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
    // Repeated ones are packed, or each for itself.
    Tag(v1::Column::kIdsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
    Tag(v1::Column::kIdsFieldNumber, WireFormatLite::WIRETYPE_FIXED64),
    Tag(v1::Column::kNumbersFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
    Tag(v1::Column::kNumbersFieldNumber, WireFormatLite::WIRETYPE_FIXED32),
    Tag(v1::Column::kStringBytesFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
    Tag(v1::Column::kStringBytesFieldNumber, WireFormatLite::WIRETYPE_VARINT),
    Tag(v1::Column::kRowLengthsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED),
    Tag(v1::Column::kRowLengthsFieldNumber, WireFormatLite::WIRETYPE_VARINT),
};

// Skips a field that the schema does not know. A group, which may hold any number of others, is too many.
bool SkipUnknown(CodedInputStream* input, uint32_t tag, size_t* unknown) {
  const bool group = WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_START_GROUP;
  *unknown += group ? ScoreRequestAdapter::kMaxUnknownFields + 1 : 1;
  return group || WireFormatLite::SkipField(input, tag);
}

// Passes over a message, without reading values.
bool WalkMessage(CodedInputStream* input, absl::Span<const uint32_t> known, size_t* unknown) {
  int size = 0;
  if (!input->ReadVarintSizeAsInt(&size)) return false;
  const CodedInputStream::Limit limit = input->PushLimit(size);
  while (const uint32_t tag = input->ReadTag()) {
    const bool is_known = std::find(known.begin(), known.end(), tag) != known.end();
    if (!(is_known ? WireFormatLite::SkipField(input, tag) : SkipUnknown(input, tag, unknown))) return false;
    if (*unknown > ScoreRequestAdapter::kMaxUnknownFields) return true;  // is refused
  }
  if (!input->ConsumedEntireMessage() || input->BytesUntilLimit() != 0) return false;
  input->PopLimit(limit);
  return true;
}

bool IsUtf8(const std::string& text) {
  return google::protobuf::internal::IsStructurallyValidUTF8(text.data(), static_cast<int>(text.size()));
}

}  // namespace

absl::Status ScoreRequestAdapter::ReadHead(google::protobuf::io::ZeroCopyInputStream* bytes, RequestHead* head) {
  CodedInputStream input(bytes);
  head->model.clear();
  head->version = 0;
  head->label.clear();
  head->num_candidates = 0;
  size_t columns = 0, unknown = 0;
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
      std::string& name = tag == kModel ? head->model : head->label;
      // What quotes it could not be sent back.
      good = good && input.ReadString(&name, static_cast<int>(size)) && IsUtf8(name);
    } else if (tag == kVersion) {
      good = input.ReadVarint64(&head->version);
    } else if (tag == kNumCandidates) {
      good = input.ReadVarint32(&head->num_candidates);
    } else if (tag == kContext || tag == kCandidates) {
      ++columns;
      good = WalkMessage(&input, kColumn, &unknown);
    } else if (tag == kOptions) {
      good = WalkMessage(&input, {&kTimings, 1}, &unknown);
    } else {
      good = SkipUnknown(&input, tag, &unknown);
    }
    if (!good) return Malformed();
    if (columns > kMaxColumns) {
      return absl::InvalidArgumentError(absl::StrCat("the request has more than ", kMaxColumns, " columns"));
    }
    if (unknown > kMaxUnknownFields) {
      return absl::InvalidArgumentError(absl::StrCat("the request has a group, or more than ", kMaxUnknownFields,
                                                     " fields, that this server does not know"));
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
  const absl::string_view message = Utf8Prefix(status.message(), kMaxMessageBytes);
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
