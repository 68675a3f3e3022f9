#include "tools/bench/peers/hilomoe_peer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/zero_copy_stream_impl.h"
#include "google/protobuf/util/delimited_message_util.h"
#include "hilomoe/v1/model_file.pb.h"
#include "model/model_file.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"
#include "runtime/column_view.h"
#include "runtime/predictor.h"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

struct Request {
  v1::GoldenRequest message;
  std::vector<ColumnView> context, candidates;
  RequestView view() const { return {message.num_candidates(), context, candidates}; }
};

absl::StatusOr<std::vector<std::unique_ptr<Request>>> ReadRequests(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open '", path, "'"));
  google::protobuf::io::IstreamInputStream stream(&file);
  std::vector<std::unique_ptr<Request>> requests;
  while (true) {
    auto request = std::make_unique<Request>();
    bool end = false;
    if (!google::protobuf::util::ParseDelimitedFromZeroCopyStream(&request->message, &stream, &end)) {
      if (end) return requests;
      return absl::DataLossError(absl::StrCat("'", path, "' ends within a request"));
    }
    AppendColumnViews(request->message.context(), &request->context);
    AppendColumnViews(request->message.candidates(), &request->candidates);
    requests.push_back(std::move(request));
  }
}

// A model, and how far each number of candidates has come in its requests.
class Row {
 public:
  static absl::StatusOr<std::unique_ptr<Row>> Create(const Predictor& predictor, bool from_ids,
                                                     const std::vector<std::unique_ptr<Request>>& requests) {
    auto row = std::unique_ptr<Row>(new Row(predictor, from_ids));
    for (const auto& request : requests) {
      Call& call = row->calls_[request->message.num_candidates()].calls.emplace_back();
      call.request = request.get();
      HILOMOE_RETURN_IF_ERROR(predictor.encoder().Encode(request->view(), &call.batch, nullptr));
      call.scores.resize(request->message.num_candidates());
    }
    return row;
  }

  absl::Status Score(std::ostream* output) {
    for (auto& [candidates, group] : calls_) {
      for (Call& call : group.calls) {
        std::fill(call.scores.begin(), call.scores.end(), std::nanf(""));
        HILOMOE_RETURN_IF_ERROR(Run(&call));
        output->write(reinterpret_cast<const char*>(call.scores.data()),
                      static_cast<std::streamsize>(call.scores.size() * sizeof(float)));
      }
    }
    return output->good() ? absl::OkStatus() : absl::DataLossError("cannot write the scores");
  }

  // Nanoseconds of one request: calls for about a fifth of the time unmeasured, then as many as fit.
  absl::StatusOr<double> Time(size_t candidates, double ms) {
    const auto found = calls_.find(candidates);
    if (found == calls_.end()) return absl::NotFoundError(absl::StrCat("no request with ", candidates, " candidates"));
    Group& group = found->second;
    double ns = 0;
    for (const double limit : {ms * 2e5, ms * 1e6}) {
      const auto start = std::chrono::steady_clock::now();
      double done = 0, elapsed = 0;
      do {
        HILOMOE_RETURN_IF_ERROR(Run(&group.calls[group.next]));
        group.next = (group.next + 1) % group.calls.size();
        ++done;
        elapsed = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
      } while (elapsed < limit);
      ns = elapsed / done;
    }
    return ns;
  }

 private:
  struct Call {
    const Request* request = nullptr;
    EncodedBatch batch;
    std::vector<float> scores;
  };
  struct Group {
    std::vector<Call> calls;
    size_t next = 0;
  };

  Row(const Predictor& predictor, bool from_ids) : predictor_(predictor), workspace_(predictor), from_ids_(from_ids) {}

  absl::Status Run(Call* call) {
    if (from_ids_) return predictor_.Predict(call->request->view(), &workspace_, absl::MakeSpan(call->scores));
    predictor_.Evaluate(call->batch, &workspace_, absl::MakeSpan(call->scores));
    for (float& score : call->scores) score = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(score))));
    return absl::OkStatus();
  }

  const Predictor& predictor_;
  Workspace workspace_;
  const bool from_ids_;
  std::map<size_t, Group> calls_;
};

absl::StatusOr<Json> Answer(const Json& ask, const std::string& instruction_set,
                            const std::map<std::string, std::unique_ptr<Row>>& rows) {
  if (ask.at("do") == "describe") {
    Json names = Json::array();
    for (const auto& [name, row] : rows) names.push_back(name);
    return Json{{"version", instruction_set}, {"rows", names}};
  }
  const auto found = rows.find(ask.at("row").get<std::string>());
  if (found == rows.end()) return absl::NotFoundError(absl::StrCat("no row ", ask.at("row").dump()));
  Row& row = *found->second;
  if (ask.at("do") == "score") {
    std::ofstream output(ask.at("output").get<std::string>(), std::ios::binary);
    HILOMOE_RETURN_IF_ERROR(row.Score(&output));
    return Json::object();
  }
  HILOMOE_ASSIGN_OR_RETURN(const double ns, row.Time(ask.at("candidates").get<size_t>(), ask.at("ms").get<double>()));
  return Json{{"ns", ns}};
}

}  // namespace

absl::Status ServePeer(const PeerOptions& options, std::istream& in, std::ostream& out) {
  HILOMOE_ASSIGN_OR_RETURN(const auto requests, ReadRequests(options.requests));
  std::vector<std::unique_ptr<Predictor>> predictors;
  std::map<std::string, std::unique_ptr<Row>> rows;
  for (const auto& [name, path] : options.models) {
    HILOMOE_ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(path));
    HILOMOE_ASSIGN_OR_RETURN(predictors.emplace_back(), Predictor::Create(std::move(file)));
    HILOMOE_ASSIGN_OR_RETURN(rows[name], Row::Create(*predictors.back(), false, requests));
    HILOMOE_ASSIGN_OR_RETURN(rows[name + "_ids"], Row::Create(*predictors.back(), true, requests));
  }
  std::string line;
  while (std::getline(in, line)) {
    try {
      HILOMOE_ASSIGN_OR_RETURN(const Json answer, Answer(Json::parse(line), predictors[0]->kernels().name, rows));
      out << answer.dump() << std::endl;
    } catch (const Json::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat("'", line, "': ", error.what()));
    }
  }
  return absl::OkStatus();
}

}  // namespace hilomoe
