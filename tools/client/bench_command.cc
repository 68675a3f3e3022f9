#include "tools/client/bench_command.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "tools/client/connection_flags.h"
#include "tools/client/expected_scores.h"
#include "tools/client/in_process_load.h"
#include "tools/client/load_channels.h"
#include "tools/client/load_generator.h"
#include "tools/client/load_report.h"
#include "tools/client/request_source.h"
#include "tools/client/server_connection.h"
#include "tools/client/stream_load.h"
#include "tools/client/synthetic_requests.h"

ABSL_FLAG(double, rate, 0,
          "open loop: requests a second, at the times of a Poisson process, latency counting from those times; 0: "
          "closed loop");
ABSL_FLAG(int64_t, concurrency, 1, "closed loop: requests under way at any time");
ABSL_FLAG(int64_t, open_loop_max_in_flight, 10'000,
          "open loop: with so many under way the next waits; reported when it happens");
ABSL_FLAG(double, duration, 10, "seconds that are reported");
ABSL_FLAG(double, warmup, 1, "seconds before that");
ABSL_FLAG(std::string, method, "Score",
          "Score; ModelInfer, of the v2 protocol; or ScoreStream: a stream on every connection, closed loop, "
          "--concurrency requests ahead on each");
ABSL_FLAG(std::string, candidates, "100", "of a request; or a mix, 10:0.2,100:0.6,1000:0.2");
ABSL_FLAG(int64_t, requests, 64, "different requests; they are sent in turn");
ABSL_FLAG(std::string, log, "", "take the requests from this log, as `score` does, instead of drawing them");
ABSL_FLAG(std::string, capture, "", "take the requests from this file of captured ones (a server's --capture_path)");
ABSL_FLAG(std::string, model_dir, "",
          "a directory <version>/model.hilomoe: ids are drawn from the first version's vocabularies, and its schema is "
          "taken instead of the server's");
ABSL_FLAG(bool, verify, false,
          "compare every score bit by bit with what the files in --model_dir give; exit code 1 if one is wrong");
ABSL_FLAG(bool, in_process, false,
          "evaluate the requests here, one after another, with the first version in --model_dir, instead of sending "
          "them: the most that a server with one evaluation thread could give");
ABSL_FLAG(double, zipf_exponent, 1.05, "of the law that ids are drawn by");
ABSL_FLAG(int64_t, ids, 100'000, "of a feature whose ids no model file tells: 1, 2, ...");
ABSL_FLAG(uint64_t, seed, 1, "of requests and arrivals");
ABSL_FLAG(bool, timings, false, "ask the server for the predictor's own time and report it");
ABSL_FLAG(int64_t, connections, 1, "that the requests go over in turn");
ABSL_FLAG(bool, watch_health, false,
          "send only to servers whose health says SERVING; several: --server=ipv4:127.0.0.1:8500,127.0.0.1:8600");
ABSL_FLAG(int64_t, client_retries, 0,
          "that gRPC makes of a call answered UNAVAILABLE or RESOURCE_EXHAUSTED, after the server's pushback");
ABSL_FLAG(std::string, swap_times, "",
          "a file with a line `seconds since 1970` for each version published; read at the end of the run");
ABSL_FLAG(double, swap_before_ms, 500, "a swap begins so long before a version's first answer, if not when published");
ABSL_FLAG(double, swap_after_ms, 100, "a swap ends so long after a version's first answer");
ABSL_FLAG(int64_t, timeline_ms, 0, "put a time line of such steps into --report; 0: none");

namespace hilomoe {
namespace {

struct BenchOptions {
  ConnectionOptions server;
  LoadChannelOptions channels;
  LoadOptions load;
  SyntheticRequestOptions synthetic;
  WireMethod method = WireMethod::kScore;
  SwapWindows swaps;
  std::string swap_times, log, capture, model_dir, report;
  bool verify = false, timings = false, in_process = false;
  absl::Duration timeline_step;
  std::vector<std::pair<std::string, std::string>> setup;  // for the report
};

absl::Status CheckNumber(const char* flag, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", value, " is not between ", least, " and ", most));
}

absl::Status LoadOptionsFromFlags(BenchOptions* options) {
  LoadOptions& load = options->load;
  load.rate = absl::GetFlag(FLAGS_rate);
  const int64_t concurrency = absl::GetFlag(FLAGS_concurrency);
  const int64_t max_in_flight = absl::GetFlag(FLAGS_open_loop_max_in_flight);
  const int64_t deadline_ms = absl::GetFlag(FLAGS_deadline_ms);
  const double warmup = absl::GetFlag(FLAGS_warmup), duration = absl::GetFlag(FLAGS_duration);
  HILOMOE_RETURN_IF_ERROR(CheckNumber("rate", load.rate, 0, 1e6));
  HILOMOE_RETURN_IF_ERROR(CheckRange("concurrency", concurrency, 1, 10'000));
  HILOMOE_RETURN_IF_ERROR(CheckRange("open_loop_max_in_flight", max_in_flight, 1, 1'000'000));
  HILOMOE_RETURN_IF_ERROR(CheckRange("deadline_ms", deadline_ms, 1, 1'000'000));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("warmup", warmup, 0, 1e5));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("duration", duration, 0.001, 1e5));
  load.concurrency = static_cast<size_t>(concurrency);
  load.max_in_flight = static_cast<size_t>(max_in_flight);
  load.deadline = absl::Milliseconds(deadline_ms);
  load.warmup = absl::Seconds(warmup);
  load.duration = absl::Seconds(duration);
  load.seed = absl::GetFlag(FLAGS_seed);
  options->setup = {
      {"loop", load.rate > 0 ? "open" : "closed"},
      {load.rate > 0 ? "rate" : "concurrency", load.rate > 0 ? absl::StrCat(load.rate) : absl::StrCat(concurrency)},
      {"deadline_ms", absl::StrCat(deadline_ms)},
      {"method", absl::GetFlag(FLAGS_method)},
      {"candidates", absl::GetFlag(FLAGS_candidates)},
      {"connections", absl::StrCat(absl::GetFlag(FLAGS_connections))},
      {"client_retries", absl::StrCat(absl::GetFlag(FLAGS_client_retries))},
      {"watch_health", absl::GetFlag(FLAGS_watch_health) ? "true" : "false"},
      {"warmup", absl::StrCat(warmup)}};
  return absl::OkStatus();
}

absl::StatusOr<BenchOptions> OptionsFromFlags(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
  BenchOptions options;
  HILOMOE_ASSIGN_OR_RETURN(options.server, ConnectionOptionsFromFlags());
  HILOMOE_RETURN_IF_ERROR(LoadOptionsFromFlags(&options));
  HILOMOE_ASSIGN_OR_RETURN(options.method, WireMethodOf(absl::GetFlag(FLAGS_method)));
  if (options.method == WireMethod::kScoreStream && options.load.rate > 0) {
    return absl::InvalidArgumentError("--rate: ScoreStream has only a closed loop");
  }

  const int64_t connections = absl::GetFlag(FLAGS_connections), retries = absl::GetFlag(FLAGS_client_retries);
  HILOMOE_RETURN_IF_ERROR(CheckRange("connections", connections, 1, 1000));
  HILOMOE_RETURN_IF_ERROR(CheckRange("client_retries", retries, 0, 4));
  options.channels.server = options.server;
  options.channels.connections = static_cast<size_t>(connections);
  options.channels.watch_health = absl::GetFlag(FLAGS_watch_health);
  options.channels.retries = static_cast<int>(retries);

  SyntheticRequestOptions& synthetic = options.synthetic;
  const int64_t requests = absl::GetFlag(FLAGS_requests), ids = absl::GetFlag(FLAGS_ids);
  HILOMOE_RETURN_IF_ERROR(CheckRange("requests", requests, 1, 100'000));
  HILOMOE_RETURN_IF_ERROR(CheckRange("ids", ids, 1, 10'000'000));
  synthetic.zipf_exponent = absl::GetFlag(FLAGS_zipf_exponent);
  HILOMOE_RETURN_IF_ERROR(CheckNumber("zipf_exponent", synthetic.zipf_exponent, 0, 10));
  HILOMOE_ASSIGN_OR_RETURN(synthetic.candidates, ParseCandidateMix(absl::GetFlag(FLAGS_candidates)));
  synthetic.count = static_cast<size_t>(requests);
  synthetic.ids = static_cast<uint32_t>(ids);
  synthetic.seed = absl::GetFlag(FLAGS_seed);

  options.swaps.before = absl::Milliseconds(absl::GetFlag(FLAGS_swap_before_ms));
  options.swaps.after = absl::Milliseconds(absl::GetFlag(FLAGS_swap_after_ms));
  options.swap_times = absl::GetFlag(FLAGS_swap_times);
  options.log = absl::GetFlag(FLAGS_log);
  options.capture = absl::GetFlag(FLAGS_capture);
  if (!options.log.empty() && !options.capture.empty()) {
    return absl::InvalidArgumentError("--capture: the requests are taken from --log already");
  }
  options.model_dir = absl::GetFlag(FLAGS_model_dir);
  options.report = absl::GetFlag(FLAGS_report);
  options.verify = absl::GetFlag(FLAGS_verify);
  options.timings = absl::GetFlag(FLAGS_timings);
  options.in_process = absl::GetFlag(FLAGS_in_process);
  HILOMOE_RETURN_IF_ERROR(CheckRange("timeline_ms", absl::GetFlag(FLAGS_timeline_ms), 0, 3'600'000));
  options.timeline_step = absl::Milliseconds(absl::GetFlag(FLAGS_timeline_ms));
  if ((options.verify || options.in_process) && options.model_dir.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.verify ? "--verify" : "--in_process", ": say in --model_dir where the model files are"));
  }
  return options;
}

// The set, with its expectations when they are wanted.
struct RequestSet {
  std::vector<v1::ScoreRequest> requests;
  std::vector<grpc::ByteBuffer> bytes;  // of the requests
  std::optional<ExpectedScores> expected;
  std::vector<ModelVersionFile> files;  // in --model_dir
};

absl::StatusOr<RequestSet> MakeRequestSet(const BenchOptions& options) {
  RequestSet set;
  ModelSpec spec;
  KnownIds known;
  std::string group_by;
  std::vector<ModelVersionFile>& files = set.files;
  if (!options.model_dir.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(files, ListModelVersions(options.model_dir));
    HILOMOE_ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(files[0].path));
    spec = file.spec();
    known = KnownIdsOf(file);
    group_by = file.header().provenance().group_by();
  } else {
    HILOMOE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, Connect(options.server));
    HILOMOE_ASSIGN_OR_RETURN(const v1::GetModelResponse model, FetchModel(channel, options.server));
    HILOMOE_ASSIGN_OR_RETURN(spec, ModelSpec::Create(model.config()));
    group_by = model.group_by();
  }
  if (!options.capture.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(set.requests, RequestsFromCapture(options.capture, options.synthetic.count));
  } else if (options.log.empty()) {
    set.requests = SyntheticRequests(spec, known, options.synthetic);
  } else {
    HILOMOE_ASSIGN_OR_RETURN(set.requests, RequestsFromLog(options.log, spec, group_by, options.synthetic.count));
  }
  for (v1::ScoreRequest& request : set.requests) {
    // Captured ones may name their own.
    if (!options.server.model.empty()) request.set_model(options.server.model);
    if (options.server.version != 0) {
      request.set_version(options.server.version);
      request.clear_label();
    }
    if (options.timings) request.mutable_options()->set_timings(true);
    set.bytes.push_back(RequestBytes(options.method, request, spec));
  }
  if (options.verify) {
    HILOMOE_ASSIGN_OR_RETURN(set.expected, ExpectedScores::Compute(files, set.requests));
  }
  return set;
}

absl::StatusOr<LoadRun> Run(const BenchOptions& options, const RequestSet& set, LoadRecorder* recorder) {
  if (options.in_process) return RunInProcess(set.files[0], set.requests, options.load, recorder);
  HILOMOE_ASSIGN_OR_RETURN(std::vector<std::shared_ptr<grpc::Channel>> channels, ConnectForLoad(options.channels));
  if (options.method == WireMethod::kScoreStream) return RunStreams(channels, set.bytes, options.load, recorder);
  return LoadGenerator(std::move(channels), options.method, set.bytes, options.load, recorder).Run();
}

absl::Status RunBench(BenchOptions options, std::FILE* messages) {
  HILOMOE_ASSIGN_OR_RETURN(const RequestSet set, MakeRequestSet(options));
  LoadRecorder recorder(options.method, set.requests, set.expected.has_value() ? &*set.expected : nullptr);
  HILOMOE_ASSIGN_OR_RETURN(const LoadRun run, Run(options, set, &recorder));
  if (!options.swap_times.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(options.swaps.published, ReadTimes(options.swap_times));
  }
  const LoadReport report =
      MakeLoadReport(run, recorder, options.load, set.requests, {options.swaps, options.timeline_step});
  std::fputs(report.ToText().c_str(), messages);
  if (!options.report.empty()) {
    HILOMOE_RETURN_IF_ERROR(WriteFile(options.report, report.ToJson(options.setup)));
  }
  if (!report.scores_are_right()) return absl::DataLossError("some scores are wrong");
  if (options.verify && report.right == 0) return absl::UnavailableError("no scores came that could be verified");
  return absl::OkStatus();
}

absl::StatusOr<Job> Prepare(const std::vector<std::string>& arguments) {
  HILOMOE_ASSIGN_OR_RETURN(BenchOptions options, OptionsFromFlags(arguments));
  return Job([options = std::move(options)](std::FILE* messages) { return RunBench(options, messages); });
}

}  // namespace

Command BenchCommand() {
  Command command;
  command.name = "bench";
  command.usage = "[flags]";
  command.summary = "Puts a load on a server, and says what it gave, how fast, and whether the scores were right.";
  command.flag_files = {__FILE__, kConnectionFlagsFile};
  command.prepare = Prepare;
  return command;
}

}  // namespace hilomoe
