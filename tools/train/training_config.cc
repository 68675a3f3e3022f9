#include "tools/train/training_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "model/status_macros.h"
#include "model/text_proto.h"

namespace hilomoe {
namespace {

absl::Status CheckNumber(std::string_view field, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();  // false for NaN
  return FieldError(field, absl::StrCat(value, " is not between ", least, " and ", most));
}

absl::Status CheckStage(const v1::Stage& stage) {
  if (stage.name().empty()) return FieldError("name", "a stage needs a name");
  if (stage.epochs() == 0) return FieldError("epochs", "must be at least 1");
  if (stage.patience() == 0) return FieldError("patience", "must be at least 1");
  if (stage.evaluations_per_epoch() == 0) return FieldError("evaluations_per_epoch", "must be at least 1");
  HILOMOE_RETURN_IF_ERROR(CheckNumber("plateau_factor", stage.plateau_factor(), 1e-6, 1));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("min_learning_rate", stage.min_learning_rate(), 0, 1));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("final_rate", stage.final_rate(), 0, 1));
  if (stage.has_final_rate() && stage.decay() == v1::Stage::CONSTANT) {
    return FieldError("final_rate", "belongs to decay: LINEAR or COSINE");
  }
  if (!(stage.share() > 0 && stage.share() <= 1)) return FieldError("share", "must be in (0, 1]");
  if (stage.train().empty()) return FieldError("train", "a stage must train at least one group");
  for (int i = 0; i < stage.train_size(); ++i) {
    const std::string field = absl::StrCat("train[", i, "].");
    if (stage.train(i).group() == v1::PARAMETER_GROUP_UNSPECIFIED) {
      return FieldError(field + "group", "say EMBEDDING, BACKBONE, EXPERT, ROUTER or HEAD");
    }
    if (!(stage.train(i).learning_rate() > 0 && stage.train(i).learning_rate() <= 10)) {
      return FieldError(field + "learning_rate", "must be in (0, 10]");
    }
    for (int j = 0; j < i; ++j) {
      if (stage.train(j).group() == stage.train(i).group()) return FieldError(field + "group", "stands twice");
    }
  }
  return absl::OkStatus();
}

TensorGroup GroupOf(v1::ParameterGroup group) {
  switch (group) {
    case v1::EMBEDDING:
      return TensorGroup::kEmbedding;
    case v1::BACKBONE:
      return TensorGroup::kBackbone;
    case v1::EXPERT:
      return TensorGroup::kExpert;
    case v1::ROUTER:
      return TensorGroup::kRouter;
    default:
      return TensorGroup::kHead;
  }
}

}  // namespace

absl::Status CheckTrainingConfig(const v1::TrainingConfig& config) {
  if (const auto spec = ModelSpec::Create(config.model()); !spec.ok()) return InField("model", spec.status());
  if (config.data().train().empty()) return FieldError("data.train", "name at least one log");
  if (config.data().valid().empty()) return FieldError("data.valid", "early stopping needs a validation log");
  if (config.monitor() == v1::TrainingConfig::GAUC && config.data().group_by().empty()) {
    return FieldError("monitor", "GAUC needs data.group_by");
  }
  if (!(config.data().negative_keep_rate() > 0 && config.data().negative_keep_rate() <= 1)) {
    return FieldError("data.negative_keep_rate", "must be in (0, 1]");
  }
  if (config.batch_size() < 2) return FieldError("batch_size", "must be at least 2: batch norm needs a deviation");
  if (config.data().shuffle_buffer_mib() == 0) return FieldError("data.shuffle_buffer_mib", "must be at least 1");
  const v1::Optimizer& optimizer = config.optimizer();
  HILOMOE_RETURN_IF_ERROR(CheckNumber("optimizer.beta1", optimizer.beta1(), 0, 0.999999));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("optimizer.beta2", optimizer.beta2(), 0, 0.9999999));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("optimizer.epsilon", optimizer.epsilon(), 1e-12, 1));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("optimizer.gradient_clip_norm", optimizer.gradient_clip_norm(), 0, 1e9));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("optimizer.table_learning_rate", optimizer.table_learning_rate(), 1e-9, 10));
  if (optimizer.has_table_learning_rate() && optimizer.embedding_update() != v1::Optimizer::ROWWISE_ADAGRAD) {
    return FieldError("optimizer.table_learning_rate", "belongs to embedding_update: ROWWISE_ADAGRAD");
  }
  HILOMOE_RETURN_IF_ERROR(CheckNumber("optimizer.embedding_l2", optimizer.embedding_l2(), 0, 1e3));
  HILOMOE_RETURN_IF_ERROR(
      CheckNumber("optimizer.embedding_init_deviation", optimizer.embedding_init_deviation(), 0, 10));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("losses.load_balance", config.losses().load_balance(), 0, 1e3));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("losses.router_z", config.losses().router_z(), 0, 1e3));
  HILOMOE_RETURN_IF_ERROR(CheckNumber("losses.diversity", config.losses().diversity(), 0, 1e3));
  if (config.stages().empty()) return FieldError("stages", "nothing to train without a stage");
  for (int i = 0; i < config.stages_size(); ++i) {
    HILOMOE_RETURN_IF_ERROR(InField(absl::StrCat("stages[", i, "]"), CheckStage(config.stages(i))));
  }
  double share = 0;
  for (int i = 0; i < config.stages_size(); ++i) {
    const std::string field = absl::StrCat("stages[", i, "].");
    share += config.stages(i).share();
    if (!config.one_pass()) {
      if (config.stages(i).has_share()) return FieldError(field + "share", "belongs to one_pass");
    } else if (config.stages(i).has_epochs() && config.stages(i).epochs() != 1) {
      return FieldError(field + "epochs", "one_pass reads every row once");
    } else if (share > 1 + 1e-6) {
      return FieldError(field + "share", absl::StrCat("the shares up to here add up to ", share));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTrainingConfig(const std::string& path, v1::TrainingConfig* config) {
  return ReadTextProto(path, config, [config] { return CheckTrainingConfig(*config); });
}

std::string ConfigText(const v1::TrainingConfig& config) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

GroupRates StageRates(const v1::Stage& stage, double factor) {
  GroupRates rates{};
  for (const v1::Stage::Rate& rate : stage.train()) {
    const bool idle = !stage.experts() && (rate.group() == v1::EXPERT || rate.group() == v1::ROUTER);
    const double value = std::max<double>(rate.learning_rate() * factor, stage.min_learning_rate());
    rates[static_cast<size_t>(GroupOf(rate.group()))] = idle ? 0 : static_cast<float>(value);
  }
  return rates;
}

std::vector<std::string> InDirectory(const std::string& directory,
                                     const google::protobuf::RepeatedPtrField<std::string>& paths) {
  std::vector<std::string> out;
  for (const std::string& path : paths) out.push_back((std::filesystem::path(directory) / path).string());
  return out;
}

}  // namespace hilomoe
