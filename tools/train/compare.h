// Runs a comparison: every arm's trials on the selection seeds, the chosen trial on all of them, then the test rows.
#ifndef HILOMOE_TOOLS_TRAIN_COMPARE_H_
#define HILOMOE_TOOLS_TRAIN_COMPARE_H_

#include <string>

#include "absl/status/status.h"

namespace hilomoe {

struct CompareOptions {
  std::string comparison_path;
  std::string program;         // hilomoe-train itself, which is run for every training
  std::string data_dir = ".";  // of the configs' logs
  std::string output_dir;
  std::string cache_dir;      // the trainings' encoded logs; empty: output_dir/cache
  int jobs = 0;               // trainings at once; 0: as many as this process may use CPUs, by run_threads
  int run_threads = 1;        // of each
  double save_every_s = 60;   // how much work of a run a kill may cost
  bool retry_failed = false;  // runs that failed are otherwise not started again
  double lock_wait_s = 60;    // for what a killed predecessor left running to save and end
};

// Everything is kept under output_dir (see comparison_runs.h, comparison_choice.h): called again, it goes on where it
// was, whatever ended it. Training never learns the names of the test logs; they are scored when every run has ended
// and the choice is frozen, with the chosen trials alone. Writes comparison.md, .html and .json, and prints the first
// to stdout; progress goes to stderr. Errors: INVALID_ARGUMENT for the files; FAILED_PRECONDITION when output_dir is in
// use, or holds runs of other configs; CANCELLED when stopped by SIGINT or SIGTERM. A run that fails is no error: it is
// reported. The process must have no other threads.
absl::Status Compare(const CompareOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMPARE_H_
