// What lies in a model repository: <root>/<model>/<version>/model.hilomoe and <root>/<model>/policy.textproto.
#ifndef HILOMOE_SERVER_REPOSITORY_LISTING_H_
#define HILOMOE_SERVER_REPOSITORY_LISTING_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hilomoe {

// Tells whether a file is still the same: a file that was replaced has another inode, or lies on another device, one
// that was written to another size or time.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  // since the epoch

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

struct ListedFile {
  std::string path;
  FileIdentity identity;
  absl::Status status;  // why it must not be loaded: it cannot be looked at, or the version stands there twice
};

struct ListedPolicy {
  std::string path;
  absl::StatusOr<std::string> text;
};

struct ListedModel {
  std::map<uint64_t, ListedFile> versions;
  std::optional<ListedPolicy> policy;
  absl::Status status;  // of listing the model's directory: what is there is unknown when it failed
};

struct RepositoryListing {
  std::map<std::string, ListedModel> models;
  std::vector<std::string> skipped;  // what looks like a model or a version and is none, with the reason
};

// Looks through `root`. Hidden names and names with ".tmp" are copies under way and passed over in silence; versions
// that are not positive decimal numbers and versions without a model file are skipped. A link to nothing is not taken
// for something deleted: what it leads to may be out of reach. `before_listing` (may be empty) is called with every
// directory just before it is read. NOT_FOUND and the like for a root that cannot be read, UNAVAILABLE when it was
// renamed, unmounted or replaced meanwhile.
absl::StatusOr<RepositoryListing> ListRepository(
    const std::string& root, const std::function<void(const std::string& directory)>& before_listing = nullptr);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_REPOSITORY_LISTING_H_
