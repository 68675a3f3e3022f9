#include "tests/tools/client/fake_server.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"

namespace hilomoe {
namespace {

constexpr char kModel[] = R"pb(
  model: "toy"
  version: 3
  label: "label"
  group_by: "request_id"
  config {
    features { id: 1 name: "user" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 4 }
    features { id: 2 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
    features { id: 3 name: "tags" kind: BAG scope: CANDIDATE id_type: STRING embedding_width: 4 }
  }
)pb";

// Whether the lengths and the number of values go together for so many rows.
bool IsWellFormed(const v1::Column& column, int rows, int values) {
  if (!column.feature().empty()) return false;
  if (column.row_lengths().empty()) return values == rows;
  const auto& lengths = column.row_lengths();
  return lengths.size() == rows && std::accumulate(lengths.begin(), lengths.end(), 0) == values;
}

// The id of each row, 0 where it is missing.
std::vector<int64_t> IdsOfRows(const v1::Column& column, int rows) {
  std::vector<int64_t> ids(static_cast<size_t>(rows));
  int next = 0;
  for (int r = 0; r < rows; ++r) {
    if (column.row_lengths().empty() || column.row_lengths(r) > 0) ids[static_cast<size_t>(r)] = column.ids(next++);
  }
  return ids;
}

grpc::Status ScoreRequestOf(const v1::ScoreRequest& request, v1::ScoreResponse* response) {
  const int rows = static_cast<int>(request.num_candidates());
  std::vector<int64_t> user(1), item(static_cast<size_t>(rows));
  std::vector<size_t> tags(static_cast<size_t>(rows));
  for (const v1::Column& column : request.context()) {
    if (column.feature_id() != 1 || !IsWellFormed(column, 1, column.ids_size())) {
      return {grpc::INTERNAL, absl::StrCat("bad context column ", column.ShortDebugString())};
    }
    user = IdsOfRows(column, 1);
  }
  for (const v1::Column& column : request.candidates()) {
    const int values = column.feature_id() == 2 ? column.ids_size() : column.string_bytes_size();
    if (column.feature_id() < 2 || column.feature_id() > 3 || !IsWellFormed(column, rows, values)) {
      return {grpc::INTERNAL, absl::StrCat("bad candidate column ", column.ShortDebugString())};
    }
    if (column.feature_id() == 2) {
      item = IdsOfRows(column, rows);
    } else {
      for (int r = 0; r < rows; ++r) {
        tags[static_cast<size_t>(r)] = column.row_lengths().empty() ? 1 : column.row_lengths(r);
      }
    }
  }
  for (size_t r = 0; r < item.size(); ++r) response->add_scores(FakeScore(user[0], item[r], tags[r]));
  return grpc::Status::OK;
}

}  // namespace

float FakeScore(int64_t user, int64_t item, size_t tags) {
  return static_cast<float>(user * 100'000 + item * 10 + static_cast<int64_t>(tags)) / 1e8f;
}

int64_t FirstItem(const v1::ScoreRequest& request) { return request.candidates(0).ids(0); }

FakeServer::FakeServer(Hook hook) : hook_(std::move(hook)) {
  if (!google::protobuf::TextFormat::ParseFromString(kModel, &model_)) std::abort();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

std::vector<v1::ScoreRequest> FakeServer::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

int FakeServer::most_at_a_time() const {
  std::lock_guard lock(mutex_);
  return most_;
}

grpc::Status FakeServer::Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                               v1::ScoreResponse* response) {
  {
    std::lock_guard lock(mutex_);
    requests_.push_back(*request);
    most_ = std::max(most_, ++now_);
  }
  const absl::Cleanup leave = [this] {
    std::lock_guard lock(mutex_);
    --now_;
  };
  response->set_model(model_.model());
  response->set_version(model_.version());
  const grpc::Status status = ScoreRequestOf(*request, response);
  return status.ok() && hook_ ? hook_(context, *request, response) : status;
}

grpc::Status FakeServer::GetModel(grpc::ServerContext*, const v1::GetModelRequest* request,
                                  v1::GetModelResponse* response) {
  if (!request->model().empty() && request->model() != model_.model()) {
    return {grpc::NOT_FOUND, absl::StrCat("no model '", request->model(), "'")};
  }
  *response = model_;
  return grpc::Status::OK;
}

}  // namespace hilomoe
