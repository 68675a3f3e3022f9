// Stands in for libFuzzer where there is none: runs a target on the files and directories of the command line, then on
// some mutations of each, the same ones every time.
//   score_request_fuzz [--mutations=N] PATH...
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
}

namespace {

std::minstd_rand engine;

std::vector<std::string> Files(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// In a vector of its own size, so that a sanitizer sees what is read behind it.
void Run(const std::vector<uint8_t>& input) { LLVMFuzzerTestOneInput(input.data(), input.size()); }

}  // namespace

// One byte changed, inserted or removed.
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  const size_t at = size == 0 ? 0 : engine() % size;
  const size_t kind = size == 0 ? 1 : engine() % 3;
  if (kind == 1 && size < max_size) {
    std::copy_backward(data + at, data + size, data + size + 1);
    data[at] = static_cast<uint8_t>(engine());
    return size + 1;
  }
  if (kind == 2 && size > 1) {
    std::copy(data + at + 1, data + size, data + at);
    return size - 1;
  }
  if (size > 0) data[at] = static_cast<uint8_t>(engine());
  return size;
}

int main(int argc, char** argv) {
  const std::string flag = "--mutations=";
  int mutations = 50;
  std::vector<std::string> paths;
  for (const std::string& argument : std::vector<std::string>(argv + 1, argv + argc)) {
    if (argument.rfind(flag, 0) == 0) {
      mutations = std::atoi(argument.c_str() + flag.size());
    } else {
      paths.push_back(argument);
    }
  }
  const std::vector<std::string> files = Files(paths);
  if (files.empty()) {
    std::fprintf(stderr, "no inputs\n");
    return 2;
  }
  constexpr size_t kMost = size_t{32} << 10;
  const auto mutate = LLVMFuzzerCustomMutator != nullptr ? LLVMFuzzerCustomMutator
                                                         : [](uint8_t* data, size_t size, size_t most, unsigned) {
                                                             return LLVMFuzzerMutate(data, size, most);
                                                           };
  for (const std::string& path : files) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read '%s'\n", path.c_str());
      return 2;
    }
    std::fprintf(stderr, "%s\n", path.c_str());  // the last one of a crash
    const std::vector<uint8_t> input{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    Run(input);
    engine.seed(1);
    for (int i = 0; i < mutations; ++i) {
      std::vector<uint8_t> mutated = input;
      mutated.resize(std::max(kMost, input.size()));
      mutated.resize(mutate(mutated.data(), input.size(), mutated.size(), static_cast<unsigned>(engine())));
      mutated.shrink_to_fit();
      Run(mutated);
    }
  }
  std::fprintf(stderr, "%zu inputs, %d mutations of each\n", files.size(), mutations);
  return 0;
}
