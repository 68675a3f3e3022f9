// Bytes of a ScoreRequest, as the server takes them from the wire, down to scores.
//
// Held besides: the head that admission reads is what the whole parse gives; scores are probabilities, and hang on the
// request alone.
#include <cstring>
#include <memory>
#include <vector>

#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/stubs/logging.h"
#include "server/score_request_adapter.h"
#include "tests/fuzz/fuzz_model.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/mutate_message.h"

namespace hilomoe {
namespace {

using google::protobuf::io::ArrayInputStream;

// A flat request of so many rows already takes several tiles.
constexpr uint32_t kMaxCandidates = 300;

void CheckHead(const absl::Status& read, const RequestHead& head, bool parsed, const v1::ScoreRequest& request) {
  if (!read.ok()) {
    const bool limit = read.message().find("than") != absl::string_view::npos;  // too long, too many
    Require(limit || !parsed, "the head is refused, the message parsed");
    return;
  }
  if (!parsed) return;  // a column is damaged
  Require(head.model == request.model(), "the head has another model");
  Require(head.version == request.version(), "the head has another version");
  Require(head.label == request.label(), "the head has another label");
  Require(head.num_candidates == request.num_candidates(), "the head has another num_candidates");
}

void Run(const uint8_t* data, size_t size) {
  static FuzzModel& model = *new FuzzModel();
  static ScoreRequestAdapter& adapter = *new ScoreRequestAdapter();
  const int block = 1 + static_cast<int>(size % 50);  // values lie across the borders of gRPC's slices
  ArrayInputStream head_bytes(data, static_cast<int>(size), block), bytes(data, static_cast<int>(size), block);
  RequestHead head;
  const absl::Status read = adapter.ReadHead(&head_bytes, &head);
  const absl::Status parsed = adapter.Parse(&bytes, model.spec());
  CheckHead(read, head, parsed.ok(), adapter.request());
  absl::Status status = read.ok() ? parsed : read;
  if (status.ok() && head.num_candidates > 0 && head.num_candidates <= kMaxCandidates) {
    status = model.Score(adapter.view(), adapter.StartResponse());
  }
  if (!status.ok()) {
    // What a stream tells of it arrives, whatever of the request it quotes.
    v1::ScoreResponse failure;
    Require(failure.ParseFromString(adapter.FailureResponse(status)->SerializeAsString()), status.ToString());
  }
  adapter.Recycle();
}

// Gives a column as many values as its rows ask for: few changes leave a request whose counts agree.
void FitColumn(v1::Column* column, size_t rows, MutationRandom* random) {
  const auto fit = [&](auto* values, size_t count) {
    const auto first = values->empty() ? 0 : values->Get(0);
    values->Truncate(static_cast<int>(std::min(count, static_cast<size_t>(values->size()))));
    while (static_cast<size_t>(values->size()) < count) values->Add(first);
  };
  size_t values = rows;
  if (!column->row_lengths().empty()) {
    fit(column->mutable_row_lengths(), rows);
    values = 0;
    for (uint32_t& length : *column->mutable_row_lengths()) {
      if (length > 70) length = static_cast<uint32_t>(Below(8, random));
      values += length;
    }
  }
  if (!column->ids().empty()) fit(column->mutable_ids(), values);
  if (!column->numbers().empty()) fit(column->mutable_numbers(), values);
  if (!column->string_bytes().empty()) {
    fit(column->mutable_string_bytes(), values);
    size_t bytes = 0;
    for (uint32_t& length : *column->mutable_string_bytes()) {
      if (length > 70) length = static_cast<uint32_t>(Below(8, random));
      bytes += length;
    }
    column->mutable_strings()->resize(bytes, 's');
  }
}

size_t Mutate(uint8_t* data, size_t size, size_t max_size, MutationRandom* random) {
  v1::ScoreRequest request;
  const size_t mutated = MutateBinary(&request, data, size, max_size, random);
  if (OneIn(2, random) || !request.ParsePartialFromArray(data, static_cast<int>(mutated))) return mutated;
  if (request.num_candidates() > kMaxCandidates) request.set_num_candidates(1 + Below(kMaxCandidates, random));
  for (v1::Column& column : *request.mutable_context()) FitColumn(&column, 1, random);
  for (v1::Column& column : *request.mutable_candidates()) FitColumn(&column, request.num_candidates(), random);
  return Replace(request.SerializePartialAsString(), data, mutated, max_size);
}

}  // namespace
}  // namespace hilomoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::Run(data, size);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::MutationRandom random(seed);
  return hilomoe::Mutate(data, size, max_size, &random);
}
