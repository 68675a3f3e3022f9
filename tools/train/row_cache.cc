#include "tools/train/row_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

constexpr char kMagic[8] = {'H', 'I', 'L', 'O', 'R', 'O', 'W', 'S'};
constexpr uint32_t kFormatVersion = 1;

struct IndexPrefix {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t xxh3;
};
static_assert(sizeof(IndexPrefix) == 24);

std::string IndexPath(const std::string& directory) { return directory + "/index.binpb"; }
std::string RowsPath(const std::string& directory) { return directory + "/rows.bin"; }

absl::Status ReadIndex(const std::string& path, v1::RowCacheIndex* index) {
  HILOMOE_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  IndexPrefix prefix;
  if (bytes.size() < sizeof(prefix)) return absl::DataLossError(absl::StrCat("'", path, "' is too short"));
  std::memcpy(&prefix, bytes.data(), sizeof(prefix));
  if (std::memcmp(prefix.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::DataLossError(absl::StrCat("'", path, "' is no index of a row cache"));
  }
  if (prefix.version != kFormatVersion) {
    return absl::DataLossError(
        absl::StrCat("'", path, "' has format version ", prefix.version, ", not ", kFormatVersion));
  }
  const char* message = bytes.data() + sizeof(prefix);
  const size_t size = bytes.size() - sizeof(prefix);
  if (XXH3_64bits(message, size) != prefix.xxh3 || !index->ParseFromArray(message, static_cast<int>(size))) {
    return absl::DataLossError(absl::StrCat("'", path, "' is damaged"));
  }
  return absl::OkStatus();
}

// About the bytes of a row, for closing blocks.
size_t BytesOf(const LabelledRows& rows) {
  size_t bytes = rows.size() * 13;
  for (const EncodedFeature& feature : rows.encoded.features) {
    bytes += 4 * (feature.rows.size() + feature.offsets.size() + feature.values.size()) + feature.missing.size();
  }
  return bytes;
}

}  // namespace

RowCache::RowCache(RowCache&& other) noexcept { *this = std::move(other); }

RowCache& RowCache::operator=(RowCache&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(columns_, other.columns_);
  std::swap(index_, other.index_);
  std::swap(rows_, other.rows_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

RowCache::~RowCache() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<RowCache> RowCache::Open(const std::string& directory, const RowColumns& columns) {
  RowCache cache;
  cache.path_ = RowsPath(directory);
  cache.columns_ = columns;
  HILOMOE_RETURN_IF_ERROR(ReadIndex(IndexPath(directory), &cache.index_));
  cache.fd_ = ::open(cache.path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (cache.fd_ < 0) return absl::DataLossError(SystemError(errno, "cannot open", cache.path_).message());
  HILOMOE_RETURN_IF_ERROR(cache.Check());
  return cache;
}

absl::Status RowCache::Check() {
  struct stat info;
  if (::fstat(fd_, &info) != 0) return SystemError(errno, "cannot read", path_);
  size_t largest = 0;
  for (const auto& block : index_.blocks()) {
    if (block.offset() != bytes_ || block.bytes() % 8 != 0 ||
        block.bytes() > static_cast<uint64_t>(info.st_size) - bytes_ || block.rows() == 0) {
      return absl::DataLossError(absl::StrCat("'", path_, "' is not what its index tells of"));
    }
    bytes_ += block.bytes();
    rows_ += block.rows();
    largest = std::max<size_t>(largest, block.bytes());
  }
  if (bytes_ != static_cast<uint64_t>(info.st_size)) {
    return absl::DataLossError(absl::StrCat("'", path_, "' has ", info.st_size, " bytes instead of ", bytes_));
  }
  BlockBytes bytes(largest / 8);
  for (size_t i = 0; i < blocks(); ++i) {
    HILOMOE_RETURN_IF_ERROR(Read(i, reinterpret_cast<std::byte*>(bytes.data())).status());
  }
  return absl::OkStatus();
}

uint64_t RowCache::fingerprint() const {
  std::vector<uint64_t> parts = {index_.encoding(), rows_};
  for (const auto& block : index_.blocks()) parts.push_back(block.xxh3());
  return XXH3_64bits(parts.data(), parts.size() * sizeof(uint64_t));
}

absl::StatusOr<RowBlock> RowCache::Read(size_t i, std::byte* bytes) const {
  const auto& block = index_.blocks(static_cast<int>(i));
  size_t done = 0;
  while (done < block.bytes()) {
    const ssize_t count = ::pread(fd_, bytes + done, block.bytes() - done, static_cast<off_t>(block.offset() + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(errno, "cannot read", path_);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  const auto damaged = [&](std::string_view what) {
    return absl::DataLossError(
        absl::StrCat("'", path_, "': block ", i, ": ", absl::string_view(what.data(), what.size())));
  };
  if (done < block.bytes()) return damaged("the file has been cut short");
  if (XXH3_64bits(bytes, block.bytes()) != block.xxh3()) return damaged("wrong checksum");
  absl::StatusOr<RowBlock> parsed = RowBlock::Parse(columns_, block.rows(), {bytes, block.bytes()});
  return parsed.ok() ? std::move(parsed)
                     : damaged({parsed.status().message().data(), parsed.status().message().size()});
}

absl::StatusOr<bool> RowReader::Next(LabelledRows* rows) {
  if (!block_.has_value() || next_row_ == block_->size) {
    if (next_block_ == cache_.blocks()) return false;
    bytes_.resize(std::max(bytes_.size(), cache_.block_bytes(next_block_) / 8));
    HILOMOE_ASSIGN_OR_RETURN(block_, cache_.Read(next_block_++, reinterpret_cast<std::byte*>(bytes_.data())));
    next_row_ = 0;
  }
  const size_t end = std::min(block_->size, next_row_ + max_rows_);
  CopyRows(*block_, next_row_, end, rows);
  next_row_ = end;
  return true;
}

absl::StatusOr<RowCacheWriter> RowCacheWriter::Create(const std::string& directory, const RowColumns& columns) {
  HILOMOE_ASSIGN_OR_RETURN(AtomicDirectory staged, AtomicDirectory::Create(directory));
  HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(RowsPath(staged.staging_path())));
  return RowCacheWriter(std::move(staged), std::move(file), columns);
}

absl::Status RowCacheWriter::Append(const LabelledRows& rows) {
  if (pending_.size() + rows.size() > kBlockRows) HILOMOE_RETURN_IF_ERROR(Flush());
  AppendRows(rows.encoded, &pending_.encoded);
  pending_.labels.insert(pending_.labels.end(), rows.labels.begin(), rows.labels.end());
  pending_.weights.insert(pending_.weights.end(), rows.weights.begin(), rows.weights.end());
  pending_.groups.insert(pending_.groups.end(), rows.groups.begin(), rows.groups.end());
  rows_ += rows.size();
  return pending_.size() >= kBlockRows || BytesOf(pending_) >= kBlockBytes ? Flush() : absl::OkStatus();
}

absl::Status RowCacheWriter::Flush() {
  if (pending_.size() == 0) return absl::OkStatus();
  const std::string bytes = SerializeRows(columns_, pending_);
  auto* block = written_.add_blocks();
  block->set_offset(file_.size());
  block->set_bytes(bytes.size());
  block->set_rows(static_cast<uint32_t>(pending_.size()));
  block->set_xxh3(XXH3_64bits(bytes.data(), bytes.size()));
  const auto positives = std::count(pending_.labels.begin(), pending_.labels.end(), 1.0F);
  written_.set_positives(written_.positives() + static_cast<uint64_t>(positives));
  const double sum = columns_.weights ? std::accumulate(pending_.weights.begin(), pending_.weights.end(), 0.0)
                                      : static_cast<double>(pending_.size());
  written_.set_weight_sum(written_.weight_sum() + sum);
  pending_.Clear();
  return file_.Append(bytes);
}

absl::StatusOr<RowCache> RowCacheWriter::Commit(v1::RowCacheIndex index) {
  HILOMOE_RETURN_IF_ERROR(Flush());
  HILOMOE_RETURN_IF_ERROR(file_.Commit());
  index.MergeFrom(written_);
  const std::string message = index.SerializeAsString();
  IndexPrefix prefix{
      .magic = {}, .version = kFormatVersion, .zero = 0, .xxh3 = XXH3_64bits(message.data(), message.size())};
  std::memcpy(prefix.magic, kMagic, sizeof(kMagic));
  std::string bytes(reinterpret_cast<const char*>(&prefix), sizeof(prefix));
  bytes += message;
  HILOMOE_RETURN_IF_ERROR(WriteFile(IndexPath(directory_.staging_path()), bytes));
  HILOMOE_ASSIGN_OR_RETURN(RowCache cache, RowCache::Open(directory_.staging_path(), columns_));
  HILOMOE_RETURN_IF_ERROR(directory_.Commit());
  return cache;
}

}  // namespace hilomoe
