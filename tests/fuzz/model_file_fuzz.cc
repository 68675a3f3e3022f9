// A model file, opened, copied or mapped, made ready, its golden rows replayed, and two requests scored.
//
// The mutator knows the layout and writes checksums, sizes and places anew most of the time, as a file that these
// refuse shows no more than that; now and then it writes a whole file of a changed config.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "model/checksum.h"
#include "model/model_file.h"
#include "runtime/predictor.h"
#include "tests/fuzz/fuzz_model.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/mutate_message.h"

namespace hilomoe {
namespace {

using Tensor = v1::ModelFileHeader::Tensor;

// ---- the target ----

// Values for every feature of the model; owns them.
class Request {
 public:
  Request(const ModelSpec& spec, size_t rows, bool flat) {
    for (const FeatureSpec& feature : spec.features()) {
      const bool context = feature.is_context() && !flat;
      const uint32_t n = static_cast<uint32_t>(context ? 1 : rows);
      Values& v = *values_.emplace_back(std::make_unique<Values>());
      for (uint32_t r = 0; r < n; ++r) {
        // Of what takes one value, every third row has none; of what takes many, rows have none to twelve.
        const uint32_t length = feature.is_pooled() ? (context ? 12 : r % 13) : (r % 3 == 1 ? 0 : 1);
        v.row_lengths.push_back(length);
        for (uint32_t i = 0; i < length; ++i) v.Add(feature, r + i);
      }
      ColumnView& column = (context ? context_ : candidates_).emplace_back();
      column.feature_id = feature.id;
      column.ids = v.ids;
      column.strings = v.strings;
      column.string_bytes = v.string_bytes;
      column.numbers = v.numbers;
      column.row_lengths = v.row_lengths;
    }
    view_ = {rows, context_, candidates_};
  }
  const RequestView& view() const { return view_; }

 private:
  struct Values {
    void Add(const FeatureSpec& feature, uint32_t n) {
      if (feature.is_numeric()) {
        numbers.push_back(static_cast<float>(n % 7) - 3);
      } else if (feature.id_type == v1::Feature::INT64) {
        ids.push_back(98 + n % 9);
      } else {
        const std::string id = absl::StrCat("s", n % 7);
        strings += id;
        string_bytes.push_back(static_cast<uint32_t>(id.size()));
      }
    }
    std::vector<int64_t> ids;
    std::string strings;
    std::vector<uint32_t> string_bytes;
    std::vector<float> numbers;
    std::vector<uint32_t> row_lengths;
  };
  std::vector<std::unique_ptr<Values>> values_;
  std::vector<ColumnView> context_, candidates_;
  RequestView view_;
};

void Run(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  ModelFileOptions options;
  options.memory = size % 2 == 0 ? FileMemory::kCopy : FileMemory::kMap;
  absl::StatusOr<ModelFile> opened = ModelFile::Open(file.path(), options);
  if (!opened.ok()) {
    const absl::StatusCode code = opened.status().code();
    Require(code == absl::StatusCode::kDataLoss || code == absl::StatusCode::kFailedPrecondition ||
                code == absl::StatusCode::kInvalidArgument,
            opened.status().ToString());
    return;
  }
  const absl::StatusOr<std::unique_ptr<Predictor>> created = Predictor::Create(*std::move(opened));
  Require(created.ok(), created.status().ToString());
  const Predictor& predictor = **created;
  const absl::Status golden = predictor.CheckGolden();
  Require(golden.ok() || golden.code() == absl::StatusCode::kDataLoss, golden.ToString());
  // What fails its golden rows is never served, but neither is it an excuse.
  Workspace workspace(predictor);
  constexpr size_t kRows = 66;
  std::vector<float> scores(kRows);
  for (const bool flat : {false, true}) {
    const Request request(predictor.file().spec(), kRows, flat);
    const absl::Status scored = predictor.Predict(request.view(), &workspace, absl::MakeSpan(scores));
    // A number may leave the range of the file's transform.
    Require(scored.ok() || scored.code() == absl::StatusCode::kInvalidArgument, scored.ToString());
    if (scored.ok()) RequireRows(predictor, workspace.batch);
  }
  Require(predictor.file().CheckUnchanged().ok(), "the file is said to have changed");
}

// ---- the mutator ----

struct Preamble {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t header_bytes;
  uint64_t header_xxh3;
};

constexpr size_t kAlignment = 64;

struct Image {
  Preamble preamble{};
  v1::ModelFileHeader header;
  std::vector<std::string> tensors;  // bytes of each
};

bool Parse(const uint8_t* data, size_t size, Image* image) {
  if (size < sizeof(Preamble)) return false;
  std::memcpy(&image->preamble, data, sizeof(Preamble));
  const uint64_t header_bytes = std::min<uint64_t>(image->preamble.header_bytes, size - sizeof(Preamble));
  if (!image->header.ParsePartialFromArray(data + sizeof(Preamble), static_cast<int>(header_bytes))) return false;
  for (const Tensor& tensor : image->header.tensors()) {
    const size_t begin = std::min<uint64_t>(tensor.offset(), size);
    const size_t bytes = std::min<uint64_t>(tensor.bytes(), size - begin);
    image->tensors.emplace_back(reinterpret_cast<const char*>(data) + begin, bytes);
  }
  return true;
}

// Offsets, sizes and checksums as the bytes of the tensors ask for.
void Place(Image* image) {
  v1::ModelFileHeader& header = image->header;
  image->tensors.resize(static_cast<size_t>(header.tensors_size()));
  const auto align = [](size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };
  for (size_t header_bytes = 0;;) {
    size_t offset = sizeof(Preamble) + header_bytes, end = offset;
    for (size_t i = 0; i < image->tensors.size(); ++i) {
      Tensor& tensor = *header.mutable_tensors(static_cast<int>(i));
      tensor.set_offset(offset = align(end));
      tensor.set_bytes(image->tensors[i].size());
      tensor.set_xxh3(ChecksumOf(image->tensors[i].data(), image->tensors[i].size()));
      end = offset + image->tensors[i].size();
    }
    header.set_file_bytes(end);
    if (header.ByteSizeLong() <= header_bytes) return;
    header_bytes = header.ByteSizeLong();
  }
}

// Tensors go where `places` has them.
std::string Serialize(Image image, const v1::ModelFileHeader& places) {
  const std::string header = image.header.SerializePartialAsString();
  image.preamble.header_bytes = header.size();
  image.preamble.header_xxh3 = ChecksumOf(header.data(), header.size());
  std::string bytes(reinterpret_cast<const char*>(&image.preamble), sizeof(Preamble));
  bytes += header;
  for (size_t i = 0; i < image.tensors.size(); ++i) {
    bytes.resize(std::max<size_t>(bytes.size(), places.tensors(static_cast<int>(i)).offset()));
    bytes += image.tensors[i];
  }
  return bytes;
}

// A whole file of the image's config, with weights from `random`; empty when the config is none, or too large.
std::string Rebuild(const Image& image, size_t max_size, MutationRandom* random) {
  const absl::StatusOr<ModelSpec> spec = ModelSpec::Create(image.header.config());
  if (!spec.ok()) return "";
  ModelFileContents contents;
  contents.header = image.header;
  if (OneIn(2, random)) contents.header.set_golden_tolerance(2);  // any score will do
  for (const TableSpec& table : spec->tables()) {
    VocabularyIds& ids = contents.vocabularies.emplace_back();
    for (int i = 0; table.has_vocabulary() && i < 6; ++i) {
      if (table.id_type == v1::Feature::INT64) {
        ids.int64s.push_back(100 + i);
      } else {
        ids.strings.push_back(absl::StrCat("s", i));
      }
    }
    contents.table_rows.push_back(kReservedRows + (table.has_vocabulary() ? static_cast<uint32_t>(ids.size())
                                                                          : table.hash_buckets + table.buckets));
  }
  const TensorRegistry registry = TensorRegistry::ForServing(*spec, contents.table_rows);
  if (registry.size() > max_size) return "";  // floats: int8 may be a quarter
  std::vector<float> arena(registry.size());
  for (float& weight : arena) weight = static_cast<float>(Below(2001, random)) / 1000 - 1;
  for (const TensorSpec& tensor : registry.tensors()) {
    contents.tensors.push_back(absl::MakeConstSpan(arena).subspan(tensor.offset, tensor.size));
  }
  const auto precision = [&] { return static_cast<Precision>(OneIn(2, random) ? 0 : Below(3, random)); };
  contents.precision = {precision(), precision(), precision()};
  const std::string path = ScratchDirectory() + "/model.hilomoe";
  if (!WriteModelFile(path, contents).ok()) return "";
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

size_t Mutate(uint8_t* data, size_t size, size_t max_size, MutationRandom* random) {
  Image image;
  const size_t kind = Below(8, random);
  if (kind == 0 || !Parse(data, size, &image)) {
    const size_t mutated = LLVMFuzzerMutate(data, size, max_size);
    Preamble preamble;
    if (OneIn(4, random) || mutated < sizeof(preamble)) return mutated;
    std::memcpy(&preamble, data, sizeof(preamble));
    if (preamble.header_bytes <= mutated - sizeof(preamble)) {
      preamble.header_xxh3 = ChecksumOf(data + sizeof(preamble), preamble.header_bytes);
      std::memcpy(data, &preamble, sizeof(preamble));
    }
    return mutated;
  }
  if (kind <= 2 && !image.tensors.empty()) {
    MutateBytes(&image.tensors[Below(image.tensors.size(), random)], OneIn(4, random) ? 64 : 0);
  } else if (kind <= 5) {
    if (kind == 5) Place(&image);
    const v1::ModelFileHeader places = image.header;
    do {
      MutateMessage(&image.header, random);
    } while (OneIn(2, random));
    if (kind == 5) return Replace(Serialize(image, places), data, size, max_size);
  } else {
    do {
      MutateMessage(image.header.mutable_config(), random);
    } while (OneIn(2, random));
    const std::string rebuilt = Rebuild(image, max_size, random);
    if (!rebuilt.empty()) return Replace(rebuilt, data, size, max_size);
  }
  Place(&image);
  return Replace(Serialize(image, image.header), data, size, max_size);
}

}  // namespace
}  // namespace hilomoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::Run(data, size);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::MutationRandom random(seed);
  return hilomoe::Mutate(data, size, max_size, &random);
}
