#include "tools/train/comparison_plan.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"
#include "model/status_macros.h"
#include "model/text_proto.h"
#include "tools/train/training_config.h"

namespace hilomoe {
namespace {

constexpr uint64_t kMostSeeds = 1000;

std::string Indexed(const char* field, int index) { return absl::StrCat(field, "[", index, "]"); }

// Names become directories.
absl::Status CheckName(const std::string& field, const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
  });
  if (!name.empty() && plain && name[0] != '.') return absl::OkStatus();
  return FieldError(field,
                    absl::StrCat("'", name, "' must be of letters, digits, '_', '-' and '.', and not begin with '.'"));
}

// What must be the same for every arm.
v1::Data MeasuredOn(const v1::Data& data) {
  v1::Data same;
  *same.mutable_valid() = data.valid();
  *same.mutable_test() = data.test();
  same.set_label(data.label());
  same.set_group_by(data.group_by());
  return same;
}

// MergeFrom would append to repeated fields.
void ClearGivenLists(const google::protobuf::Message& overrides, google::protobuf::Message* config) {
  std::vector<const google::protobuf::FieldDescriptor*> given;
  overrides.GetReflection()->ListFields(overrides, &given);
  const google::protobuf::Reflection& reflection = *config->GetReflection();
  for (const google::protobuf::FieldDescriptor* field : given) {
    if (field->is_repeated()) {
      reflection.ClearField(config, field);
    } else if (field->message_type() != nullptr && reflection.HasField(*config, field)) {
      ClearGivenLists(overrides.GetReflection()->GetMessage(overrides, field),
                      reflection.MutableMessage(config, field));
    }
  }
}

class Reader {
 public:
  Reader(const v1::Comparison& file, const std::string& path)
      : file_(file), directory_(std::filesystem::path(path).parent_path()) {}

  absl::StatusOr<ComparisonPlan> Read() {
    HILOMOE_RETURN_IF_ERROR(ReadSeeds());
    if (file_.arms_size() < 2) return FieldError("arms", "a comparison needs at least two");
    for (int a = 0; a < file_.arms_size(); ++a) HILOMOE_RETURN_IF_ERROR(ReadArm(a));
    plan_.title = file_.title();
    plan_.notes = {file_.notes().begin(), file_.notes().end()};
    HILOMOE_ASSIGN_OR_RETURN(plan_.judged, FindArm("judged", file_.judged()));
    if (plan_.arms[plan_.judged].control) {
      return FieldError("judged", absl::StrCat("arm '", file_.judged(), "' is a control itself"));
    }
    const auto control =
        std::find_if(plan_.arms.begin(), plan_.arms.end(), [](const ComparisonArm& arm) { return arm.control; });
    if (control == plan_.arms.end()) return FieldError("arms", "none has control: true");
    plan_.flops_reference = static_cast<size_t>(control - plan_.arms.begin());
    if (file_.has_flops_reference()) {
      HILOMOE_ASSIGN_OR_RETURN(plan_.flops_reference, FindArm("flops_reference", file_.flops_reference()));
    }
    HILOMOE_RETURN_IF_ERROR(CheckCurves());
    plan_.resamples = file_.bootstrap().resamples();
    plan_.bootstrap_seed = file_.bootstrap().seed();
    if (plan_.resamples < 100 || plan_.resamples > 1'000'000) {
      return FieldError("bootstrap.resamples", absl::StrCat(plan_.resamples, " is not between 100 and 1000000"));
    }
    return std::move(plan_);
  }

 private:
  absl::StatusOr<size_t> FindArm(const char* field, const std::string& name) const {
    for (size_t a = 0; a < plan_.arms.size(); ++a) {
      if (plan_.arms[a].name == name) return a;
    }
    return FieldError(field, absl::StrCat("no arm is called '", name, "'"));
  }

  absl::Status CheckCurves() const {
    for (size_t a = 0; a < plan_.arms.size(); ++a) {
      const ComparisonArm& arm = plan_.arms[a];
      if (arm.curve.empty()) continue;
      const auto same = [&](const ComparisonArm& other) { return other.curve == arm.curve; };
      const std::string field = Indexed("arms", static_cast<int>(a)) + ".curve";
      if (arm.control && std::count_if(plan_.arms.begin(), plan_.arms.end(), same) < 2) {
        return FieldError(field, absl::StrCat("'", arm.curve, "' has one arm alone; a control's curve needs two"));
      }
      const ComparisonArm& first = *std::find_if(plan_.arms.begin(), plan_.arms.end(), same);
      if (first.control != arm.control) {
        return FieldError(field, absl::StrCat("of '", arm.curve, "', '", first.name, "' and '", arm.name,
                                              "' must both be controls or both not"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadSeeds() {
    if (file_.has_seed_range() == !file_.seeds().empty()) {
      return FieldError("seeds", "give either seeds or seed_range");
    }
    plan_.seeds = {file_.seeds().begin(), file_.seeds().end()};
    if (file_.has_seed_range()) {
      const uint64_t first = file_.seed_range().first(), last = file_.seed_range().last();
      if (first > last || last - first >= kMostSeeds) {
        return FieldError("seed_range",
                          absl::StrCat(first, " to ", last, " is no range of at most ", kMostSeeds, " seeds"));
      }
      for (uint64_t seed = first; seed <= last; ++seed) plan_.seeds.push_back(seed);
    }
    std::vector<uint64_t> sorted = plan_.seeds;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
      return FieldError("seeds", "one stands twice");
    }
    if (file_.selection_seeds() == 0) return FieldError("selection_seeds", "must be at least 1");
    plan_.selection_seeds = std::min<size_t>(file_.selection_seeds(), plan_.seeds.size());
    return absl::OkStatus();
  }

  absl::Status ReadArm(int a) {
    const v1::Comparison::Arm& from = file_.arms(a);
    const std::string field = Indexed("arms", a);
    HILOMOE_RETURN_IF_ERROR(CheckName(field + ".name", from.name()));
    for (const ComparisonArm& other : plan_.arms) {
      if (other.name == from.name())
        return FieldError(field + ".name", absl::StrCat("'", from.name(), "' stands twice"));
    }
    if (from.config().empty()) return FieldError(field + ".config", "name the arm's training config");
    v1::TrainingConfig base;
    const absl::Status read = ReadTrainingConfig((directory_ / from.config()).string(), &base);
    if (!read.ok()) return FieldError(field + ".config", std::string(read.message()));
    ApplyOverrides(from.overrides(), &base);
    HILOMOE_RETURN_IF_ERROR(InField(field + ".overrides", CheckTrainingConfig(base)));

    ComparisonArm arm{.name = from.name(), .control = from.control(), .curve = from.curve(), .trials = {}};
    const int trials = std::max(1, from.trials_size());
    for (int t = 0; t < trials; ++t) {
      const bool given = t < from.trials_size();
      const std::string trial_field = given ? absl::StrCat(field, ".", Indexed("trials", t)) : field;
      ComparisonTrial trial{.name = absl::StrCat(t + 1), .config = base};
      if (given) {
        if (from.trials(t).has_name()) trial.name = from.trials(t).name();
        ApplyOverrides(from.trials(t).overrides(), &trial.config);
      }
      HILOMOE_RETURN_IF_ERROR(CheckName(trial_field + ".name", trial.name));
      if (arm.Find(trial.name) < arm.trials.size()) {
        return FieldError(trial_field + ".name", absl::StrCat("'", trial.name, "' stands twice"));
      }
      HILOMOE_RETURN_IF_ERROR(FinishTrial(trial_field, from.name(), &trial.config));
      arm.trials.push_back(std::move(trial));
    }
    plan_.arms.push_back(std::move(arm));
    return absl::OkStatus();
  }

  absl::Status FinishTrial(const std::string& field, const std::string& arm, v1::TrainingConfig* config) {
    if (file_.has_monitor()) config->set_monitor(file_.monitor());
    // A field of the arm's overrides has its line there, one of the trial's here; the deepest that is spelt out counts.
    HILOMOE_RETURN_IF_ERROR(InField(field + ".overrides", CheckTrainingConfig(*config)));
    if (config->data().test().empty()) {
      return FieldError(field + ".overrides.data.test", absl::StrCat("arm '", arm, "' names no test log"));
    }
    const v1::Data data = MeasuredOn(config->data());
    if (plan_.arms.empty() && plan_.data.test().empty()) {
      plan_.data = data;
      plan_.monitor = config->monitor();
    }
    if (!google::protobuf::util::MessageDifferencer::Equivalent(data, plan_.data)) {
      return FieldError(field + ".overrides.data",
                        absl::StrCat("valid, test, label and group_by of arm '", arm, "' differ from the first arm's"));
    }
    if (config->monitor() != plan_.monitor) {
      return FieldError(
          field + ".overrides.monitor",
          absl::StrCat("arm '", arm, "' monitors another metric than the first arm; set the comparison's"));
    }
    config->mutable_data()->clear_test();
    config->clear_seed();
    return absl::OkStatus();
  }

  const v1::Comparison& file_;
  const std::filesystem::path directory_;
  ComparisonPlan plan_;
};

}  // namespace

size_t ComparisonArm::Find(std::string_view trial) const {
  const auto found =
      std::find_if(trials.begin(), trials.end(), [&](const ComparisonTrial& t) { return t.name == trial; });
  return static_cast<size_t>(found - trials.begin());
}

void ApplyOverrides(const google::protobuf::Message& overrides, google::protobuf::Message* config) {
  ClearGivenLists(overrides, config);
  config->MergeFrom(overrides);
}

absl::StatusOr<ComparisonPlan> ReadComparison(const std::string& path) {
  v1::Comparison file;
  ComparisonPlan plan;
  HILOMOE_RETURN_IF_ERROR(ReadTextProto(path, &file, [&] {
    absl::StatusOr<ComparisonPlan> read = Reader(file, path).Read();
    if (read.ok()) plan = *std::move(read);
    return read.status();
  }));
  return plan;
}

}  // namespace hilomoe
