#include "server/repository_listing.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "server/model_policy.h"

namespace hilomoe {
namespace {

constexpr char kModelFileName[] = "model.hilomoe";
constexpr char kPolicyFileName[] = "policy.textproto";
constexpr uint64_t kMaxPolicyBytes = 1 << 20;

bool IsCopyUnderWay(const std::string& name) { return absl::StartsWith(name, ".") || absl::StrContains(name, ".tmp"); }

bool ParseVersion(const std::string& name, uint64_t* version) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
         absl::SimpleAtoi(name, version) && *version > 0;
}

// The names in a directory, sorted. `listed` tells which directory that was.
absl::StatusOr<std::vector<std::string>> ListNames(const std::string& directory, struct stat* listed) {
  DIR* const stream = ::opendir(directory.c_str());
  if (stream == nullptr) return SystemError(errno, "cannot list model repository directory", directory);
  std::vector<std::string> names;
  errno = 0;
  if (::fstat(::dirfd(stream), listed) == 0) {
    while (const dirent* entry = ::readdir(stream)) names.emplace_back(entry->d_name);
  }
  const int error = errno;
  ::closedir(stream);
  if (error != 0) return SystemError(error, "cannot list model repository directory", directory);
  std::sort(names.begin(), names.end());
  return names;
}

enum class FileKind { kMissing, kDirectory, kFile, kOther };

bool IsLink(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
}

// Follows links. An error says that it is unknown what is there.
absl::StatusOr<FileKind> Look(const std::string& path, FileIdentity* identity) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) return SystemError(errno, "cannot look at", path);
    if (!IsLink(path)) return FileKind::kMissing;
    return absl::NotFoundError(absl::StrCat("'", path, "' is a link to nothing; mount what it leads to, or remove it"));
  }
  if (S_ISDIR(info.st_mode)) return FileKind::kDirectory;
  if (!S_ISREG(info.st_mode)) return FileKind::kOther;
  *identity = {.device = info.st_dev,
               .inode = info.st_ino,
               .size = static_cast<uint64_t>(info.st_size),
               .modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
  return FileKind::kFile;
}

class Lister {
 public:
  Lister(const std::function<void(const std::string&)>& before_listing, RepositoryListing* listing)
      : before_listing_(before_listing), listing_(*listing) {}

  absl::Status ListRoot(const std::string& root) {
    struct stat listed, now;
    HILOMOE_ASSIGN_OR_RETURN(const std::vector<std::string> names, List(root, &listed));
    for (const std::string& name : names) {
      if (IsCopyUnderWay(name)) continue;
      const std::string path = absl::StrCat(root, "/", name);
      FileIdentity identity;
      const absl::StatusOr<FileKind> kind = Look(path, &identity);
      if (kind.ok() && *kind != FileKind::kDirectory) continue;
      if (!IsModelName(name)) {
        Skip(path, "a model's name is made of letters, digits, '_', '-' and '.'");
        continue;
      }
      ListedModel& model = listing_.models[name];
      model.status = kind.ok() ? ListModel(path, &model) : kind.status();
    }
    // Else what was not found below it may only be out of reach.
    if (::stat(root.c_str(), &now) == 0 && now.st_dev == listed.st_dev && now.st_ino == listed.st_ino) {
      return absl::OkStatus();
    }
    return absl::UnavailableError(absl::StrCat("model repository '", root, "' went away while it was listed"));
  }

 private:
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory, struct stat* listed) const {
    if (before_listing_) before_listing_(directory);
    return ListNames(directory, listed);
  }

  absl::Status ListModel(const std::string& directory, ListedModel* model) {
    struct stat listed;
    HILOMOE_ASSIGN_OR_RETURN(const std::vector<std::string> names, List(directory, &listed));
    for (const std::string& name : names) {
      if (IsCopyUnderWay(name)) continue;
      const std::string path = absl::StrCat(directory, "/", name);
      if (name == kPolicyFileName) {
        model->policy = ReadPolicy(path);
      } else {
        ListVersion(path, name, model);
      }
    }
    return absl::OkStatus();
  }

  // Without a value when it has gone meanwhile.
  static std::optional<ListedPolicy> ReadPolicy(const std::string& path) {
    FileIdentity identity;
    const absl::StatusOr<FileKind> kind = Look(path, &identity);
    if (!kind.ok()) return ListedPolicy{path, kind.status()};
    if (*kind == FileKind::kMissing) return std::nullopt;
    if (*kind != FileKind::kFile || identity.size > kMaxPolicyBytes) {
      return ListedPolicy{path, absl::InvalidArgumentError(
                                    absl::StrCat("'", path, "' is not a file of at most ", kMaxPolicyBytes, " bytes"))};
    }
    return ListedPolicy{path, ReadFile(path)};
  }

  void ListVersion(const std::string& directory, const std::string& name, ListedModel* model) {
    uint64_t version = 0;
    if (!ParseVersion(name, &version)) {
      Skip(directory, "a version's name must be a positive number");
      return;
    }
    if (before_listing_) before_listing_(directory);
    ListedFile file{absl::StrCat(directory, "/", kModelFileName), {}, {}};
    absl::StatusOr<FileKind> kind = Look(file.path, &file.identity);
    if (kind.ok() && *kind == FileKind::kMissing) {  // or the directory is a link to nothing
      FileIdentity unused;
      if (const auto parent = Look(directory, &unused); !parent.ok()) kind = parent.status();
    }
    if (kind.ok() && *kind != FileKind::kFile) {
      Skip(directory, absl::StrCat("holds no ", kModelFileName));
      return;
    }
    // One that cannot be looked at keeps what is served of it, and the other versions do not mind.
    file.status = kind.status();
    const auto [first, added] = model->versions.emplace(version, file);
    if (!added) {
      first->second.status = absl::FailedPreconditionError(
          absl::StrCat("'", first->second.path, "' and '", file.path, "' are the same version; remove one"));
      first->second.identity = {};  // whichever of them is served
    }
  }

  void Skip(const std::string& path, absl::string_view reason) {
    listing_.skipped.push_back(absl::StrCat("'", path, "': ", reason));
  }

  const std::function<void(const std::string&)>& before_listing_;
  RepositoryListing& listing_;
};

}  // namespace

absl::StatusOr<RepositoryListing> ListRepository(
    const std::string& root, const std::function<void(const std::string& directory)>& before_listing) {
  RepositoryListing listing;
  HILOMOE_RETURN_IF_ERROR(Lister(before_listing, &listing).ListRoot(root));
  return listing;
}

}  // namespace hilomoe
