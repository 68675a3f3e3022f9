// A generated log that trains in a moment.
#ifndef HILOMOE_TESTS_TOOLS_TRAIN_TINY_LOG_H_
#define HILOMOE_TESTS_TOOLS_TRAIN_TINY_LOG_H_

#include <string>

#include "gtest/gtest.h"
#include "tools/train/generate.h"

namespace hilomoe {

// train.csv, valid.csv and test.csv, 12,000 rows in all.
inline void GenerateTinyLog(const std::string& directory) {
  GenerateOptions options;
  options.output_dir = directory;
  options.compression = Compression::kNone;
  options.rows = 12'000;
  options.users = 60;
  options.items = 40;
  GenerateReport report;
  const absl::Status status = GenerateLog(options, &report);
  ASSERT_TRUE(status.ok()) << status;
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_TOOLS_TRAIN_TINY_LOG_H_
