// hilomoe-bench-peer: the runtime, as compare.py asks for it.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "tools/bench/peers/hilomoe_peer.h"
#include "tools/common/command_line.h"

ABSL_FLAG(std::string, requests, "", "requests.binpb, as make_model.py writes it");

namespace {

hilomoe::Command TheCommand() {
  return {.name = "",
          .usage = "--requests=FILE PRECISION=MODEL_FILE...",
          .summary = "scores requests and times it, as lines of JSON on the standard input say",
          .flag_files = {__FILE__},
          .prepare = [](const std::vector<std::string>& arguments) -> absl::StatusOr<hilomoe::Job> {
            hilomoe::PeerOptions options{absl::GetFlag(FLAGS_requests), {}};
            if (options.requests.empty()) return absl::InvalidArgumentError("--requests: say the file");
            if (arguments.empty()) return absl::InvalidArgumentError("say at least one PRECISION=MODEL_FILE");
            for (const std::string& argument : arguments) {
              const size_t equals = argument.find('=');
              if (equals == std::string::npos) {
                return absl::InvalidArgumentError(absl::StrCat("'", argument, "': say PRECISION=MODEL_FILE"));
              }
              options.models.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
            }
            return [options](std::FILE*) { return hilomoe::ServePeer(options, std::cin, std::cout); };
          }};
}

}  // namespace

int main(int argc, char** argv) { return hilomoe::RunCommands("hilomoe-bench-peer", argc, argv, {TheCommand()}); }
