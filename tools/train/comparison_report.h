// A comparison's result as comparison.md, comparison.html (both say the same) and comparison.json (every run's
// numbers).
#ifndef HILOMOE_TOOLS_TRAIN_COMPARISON_REPORT_H_
#define HILOMOE_TOOLS_TRAIN_COMPARISON_REPORT_H_

#include <string>
#include <vector>

#include "tools/train/comparison_choice.h"
#include "tools/train/comparison_plan.h"
#include "tools/train/comparison_result.h"
#include "tools/train/comparison_runs.h"

namespace hilomoe {

struct ReportTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> notes;         // below it
  std::vector<std::string> figures_html;  // of the HTML report alone
};

struct ComparisonReport {
  std::string title;
  std::vector<std::string> introduction;
  std::vector<ReportTable> tables;
};

ComparisonReport MakeReport(const ComparisonPlan& plan, const ComparisonRuns& runs, const ComparisonChoice& choice,
                            const ComparisonResult& result);

std::string ReportMarkdown(const ComparisonReport& report);
std::string ReportHtml(const ComparisonReport& report);
std::string ReportJson(const ComparisonPlan& plan, const ComparisonRuns& runs, const ComparisonChoice& choice,
                       const ComparisonResult& result);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMPARISON_REPORT_H_
