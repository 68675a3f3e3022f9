// Which trial of each arm goes on to the test rows: decided on the validation rows, and frozen in <output>/choice.json
// before a test row is scored.
#ifndef HILOMOE_TOOLS_TRAIN_COMPARISON_CHOICE_H_
#define HILOMOE_TOOLS_TRAIN_COMPARISON_CHOICE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/train/comparison_plan.h"
#include "tools/train/comparison_runs.h"

namespace hilomoe {

struct ComparisonChoice {
  struct Arm {
    std::optional<size_t> trial;  // nullopt: not chosen yet, or no trial has all its selection runs
    bool after_test = false;      // chosen when test rows had been scored for another arm
  };
  std::vector<Arm> arms;               // of the plan
  std::vector<uint64_t> seeds;         // that were planned when the first arms were chosen
  std::optional<size_t> best_control;  // the largest mean monitored value over all complete seeds of the chosen trial
  std::vector<std::string> dropped;    // arms that were chosen for, but are no longer in the plan
};

// What is frozen already. FAILED_PRECONDITION when an arm's trials or the selection seeds are no longer those it was
// chosen from, or the test logs not those that runs were scored on.
absl::StatusOr<ComparisonChoice> ReadChoice(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                            const std::string& output);

// Chooses for the arms that have no choice yet, and writes the file when that changed anything.
absl::Status FreezeChoice(const ComparisonPlan& plan, const ComparisonRuns& runs, const std::string& output,
                          ComparisonChoice* choice);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMPARISON_CHOICE_H_
