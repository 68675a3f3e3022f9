// What a test's own process writes to stderr.
#ifndef HILOMOE_TESTS_SERVER_CAPTURED_STDERR_H_
#define HILOMOE_TESTS_SERVER_CAPTURED_STDERR_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/log.h"

namespace hilomoe {

// stderr goes to file descriptor `to` as long as the object lives.
class RedirectedStderr {
 public:
  explicit RedirectedStderr(int to) : saved_(dup(STDERR_FILENO)) {
    EXPECT_TRUE(FlushLog(std::chrono::seconds(30)));
    EXPECT_EQ(dup2(to, STDERR_FILENO), STDERR_FILENO);
  }
  ~RedirectedStderr() {
    EXPECT_TRUE(FlushLog(std::chrono::seconds(30)));
    dup2(saved_, STDERR_FILENO);
    close(saved_);
  }
  RedirectedStderr(const RedirectedStderr&) = delete;
  RedirectedStderr& operator=(const RedirectedStderr&) = delete;

 private:
  const int saved_;
};

// The lines of a file, each a JSON object.
inline std::vector<nlohmann::json> JsonLines(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    lines.push_back(nlohmann::json::parse(line, nullptr, false));
    EXPECT_TRUE(lines.back().is_object()) << line;
  }
  return lines;
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_CAPTURED_STDERR_H_
