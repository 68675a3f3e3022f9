// Who may include whom, and that every test is run. The rules are those of the folders' READMEs:
// proto <- model <- runtime <- server, tools above model and runtime.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

bool StartsWith(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }
bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Why the file at `path` (from the root of the tree) may not include `header`; empty when it may.
std::string Forbidden(const std::string& path, const std::string& header) {
  static const std::map<std::string, std::set<std::string>> kMayInclude = {
      {"proto", {"hilomoe"}},
      {"model", {"hilomoe", "model"}},
      {"runtime", {"hilomoe", "model", "runtime"}},
      {"server", {"hilomoe", "model", "runtime", "server"}},
      {"tools", {"hilomoe", "model", "runtime", "tools"}},
  };
  static const std::set<std::string> kOurs = {"deploy",  "hilomoe", "model", "proto",
                                              "runtime", "server",  "tests", "tools"};
  const std::string folder = path.substr(0, path.find('/'));
  const std::string included = header.substr(0, header.find('/'));
  const bool kernels = StartsWith(path, "runtime/kernels/");
  const bool grpc = StartsWith(header, "grpc") || Contains(header, ".grpc.pb.h");
  const bool onednn = Contains(header, "dnnl") || StartsWith(header, "oneapi/");
  const bool protobuf = StartsWith(header, "google/protobuf/") || Contains(header, ".pb.h");

  if (kOurs.count(included) > 0 && kMayInclude.at(folder).count(included) == 0) {
    return folder + " may not include " + included;
  }
  if (grpc && folder != "server" && !StartsWith(path, "tools/client/"))
    return "gRPC belongs to server and tools/client";
  if (onednn && path != "tools/train/gemm.cc") return "oneDNN belongs to tools/train/gemm.cc";
  if (folder == "runtime" && StartsWith(header, "hilomoe/v1/scoring_service")) return "runtime knows no wire message";
  if (kernels &&
      (StartsWith(header, "absl/") || StartsWith(header, "Eigen/") || StartsWith(header, "eigen3/") || protobuf)) {
    return "kernels include no library";
  }
  if (kernels && kOurs.count(included) > 0 && !StartsWith(header, "runtime/kernels/")) {
    return "kernels include nothing but kernels";
  }
  return "";
}

// What is included, or imported by a .proto, in a file.
std::vector<std::string> Includes(std::istream& file) {
  static const std::regex kInclude(R"(^\s*(#\s*include|import)\s*[<"]([^>"]+)[>"].*)");
  std::vector<std::string> headers;
  for (std::string line; std::getline(file, line);) {
    if (std::smatch match; std::regex_match(line, match, kInclude)) headers.push_back(match[2]);
  }
  return headers;
}

// Paths from the root of all files under `folders` that end in one of `endings`.
std::vector<std::string> Files(const fs::path& root, const std::vector<std::string>& folders,
                               const std::vector<std::string>& endings) {
  std::vector<std::string> files;
  for (const std::string& folder : folders) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string path = fs::relative(entry.path(), root).generic_string();
      const bool wanted = std::any_of(endings.begin(), endings.end(), [&](const std::string& ending) {
        return path.size() >= ending.size() && path.compare(path.size() - ending.size(), ending.size(), ending) == 0;
      });
      if (wanted && entry.is_regular_file()) files.push_back(path);
    }
  }
  return files;
}

std::vector<std::string> Unregistered(const std::vector<std::string>& tests, const std::set<std::string>& registered) {
  std::vector<std::string> missing;
  for (const std::string& test : tests) {
    if (registered.count(test) == 0) missing.push_back(test);
  }
  return missing;
}

TEST(DependenciesTest, TheTreeKeepsToTheRules) {
  std::vector<std::string> violations;
  size_t files = 0, includes = 0;
  for (const std::string& path : Files(HILOMOE_SOURCE_DIR, {"proto", "model", "runtime", "server", "tools"},
                                       {".h", ".cc", ".c", ".inc", ".proto"})) {
    std::ifstream file(fs::path(HILOMOE_SOURCE_DIR) / path);
    ASSERT_TRUE(file) << path;
    ++files;
    for (const std::string& header : Includes(file)) {
      ++includes;
      const std::string reason = Forbidden(path, header);
      if (!reason.empty()) violations.push_back(path + " includes " + header + ": " + reason);
    }
  }
  EXPECT_THAT(violations, IsEmpty());
  EXPECT_GT(files, 50);
  EXPECT_GT(includes, 300);
}

// What is served, scored with or converted has been verified.
TEST(DependenciesTest, OnlyBenchmarksOpenModelFilesUnverified) {
  std::vector<std::string> users;
  for (const std::string& path : Files(HILOMOE_SOURCE_DIR, {"model", "runtime", "server", "tools"}, {".h", ".cc"})) {
    std::ifstream file(fs::path(HILOMOE_SOURCE_DIR) / path);
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (Contains(text, "OpenUnverified")) users.push_back(path);
  }
  EXPECT_THAT(
      users, testing::UnorderedElementsAre("model/model_file.h", "model/model_file.cc", "tools/bench/load_command.cc"));
}

TEST(DependenciesTest, EveryRuleCanBeBroken) {
  const std::pair<std::string, std::string> forbidden[] = {
      {"proto/hilomoe/v1/a.proto", "model/a.h"},
      {"model/a.cc", "runtime/a.h"},
      {"model/a.cc", "tools/common/a.h"},
      {"model/a.cc", "tests/model/a.h"},
      {"runtime/a.h", "server/a.h"},
      {"runtime/a.h", "tools/a.h"},
      {"runtime/a.h", "hilomoe/v1/scoring_service.pb.h"},
      {"runtime/a.h", "grpcpp/grpcpp.h"},
      {"server/a.cc", "tools/common/a.h"},
      {"server/a.cc", "dnnl.hpp"},
      {"tools/client/a.cc", "server/a.h"},
      {"tools/train/a.cc", "grpc/grpc.h"},
      {"tools/train/a.cc", "hilomoe/v1/scoring_service.grpc.pb.h"},
      {"tools/train/a.cc", "oneapi/dnnl/dnnl.hpp"},
      {"runtime/predictor.cc", "dnnl.h"},
      {"runtime/kernels/a.cc", "absl/types/span.h"},
      {"runtime/kernels/a.cc", "Eigen/Dense"},
      {"runtime/kernels/a.cc", "google/protobuf/message.h"},
      {"runtime/kernels/a.cc", "hilomoe/v1/column.pb.h"},
      {"runtime/kernels/a.cc", "model/model_spec.h"},
      {"runtime/kernels/a.cc", "runtime/request_view.h"},
  };
  for (const auto& [path, header] : forbidden) EXPECT_NE(Forbidden(path, header), "") << path << " " << header;
  const std::pair<std::string, std::string> allowed[] = {
      {"model/a.cc", "hilomoe/v1/a.pb.h"},
      {"runtime/a.cc", "model/a.h"},
      {"tools/train/gemm.cc", "dnnl.h"},
      {"server/a.cc", "grpcpp/grpcpp.h"},
      {"tools/client/a.cc", "grpcpp/grpcpp.h"},
      {"tools/train/a.cc", "runtime/a.h"},
      {"runtime/kernels/a.cc", "runtime/kernels/a.h"},
      {"runtime/kernels/a.cc", "immintrin.h"},
      {"server/a.cc", "hilomoe/v1/scoring_service.grpc.pb.h"},
  };
  for (const auto& [path, header] : allowed) EXPECT_EQ(Forbidden(path, header), "") << path << " " << header;
}

TEST(DependenciesTest, FindsIncludesHoweverTheyAreWritten) {
  std::istringstream file(
      "#include <a>\n  #  include \"b/c.h\"  // why\nimport \"d.proto\";\n// #include <no>\nint x; #include <no>\n");
  EXPECT_THAT(Includes(file), testing::ElementsAre("a", "b/c.h", "d.proto"));
}

// The sources of all targets under tests/, as CMake wrote them down.
TEST(RegistrationTest, EveryTestIsBuilt) {
  std::ifstream file(HILOMOE_TEST_SOURCES);
  ASSERT_TRUE(file) << HILOMOE_TEST_SOURCES;
  std::set<std::string> registered;
  for (std::string line; std::getline(file, line);) registered.insert(line);
  const std::vector<std::string> tests = Files(HILOMOE_SOURCE_DIR, {"tests"}, {"_test.cc"});
  EXPECT_GT(tests.size(), 10);
  EXPECT_THAT(Unregistered(tests, registered), IsEmpty()) << "add these to a CMakeLists.txt";
  registered.erase("tests/dependencies_test.cc");
  EXPECT_THAT(Unregistered(tests, registered), testing::ElementsAre("tests/dependencies_test.cc"));
}

}  // namespace
