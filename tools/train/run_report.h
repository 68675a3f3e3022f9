// report.html: a training run for people, drawn from its metrics.jsonl alone.
#ifndef HILOMOE_TOOLS_TRAIN_RUN_REPORT_H_
#define HILOMOE_TOOLS_TRAIN_RUN_REPORT_H_

#include <string>

#include "absl/status/status.h"
#include "tools/train/run_record.h"

namespace hilomoe {

inline constexpr char kRunReportName[] = "report.html";

// Reads run_dir/metrics.jsonl and writes the page, atomically. Works at any moment of a run: what is not known yet is
// left out. The same file gives the same page. DATA_LOSS says what the file lacks.
absl::Status WriteRunReport(const std::string& run_dir, const std::string& output);

// Its parts, as HTML; they throw what nlohmann's JSON throws when a record lacks what run_log.h promises.
std::string LearningCurves(const RunRecord& record);           // run_curves.cc
std::string CalibrationFigures(const RunRecord::Json& final);  // run_figures.cc
std::string ExpertUse(const RunRecord::Json& utilisation);     // run_figures.cc

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_RUN_REPORT_H_
