// Which models are served at one moment, and how serving threads look them up without a lock.
#ifndef HILOMOE_SERVER_MODEL_TABLE_H_
#define HILOMOE_SERVER_MODEL_TABLE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/served_model.h"

namespace hilomoe {

// Immutable.
class ModelTable {
 public:
  // Every model that the repository knows, served or not.
  struct Model {
    std::map<uint64_t, std::shared_ptr<const ServedModel>> versions;  // that are served
    std::map<std::string, uint64_t, std::less<>> labels;              // each to a version; one not served: UNAVAILABLE
    std::map<uint64_t, std::string> unavailable;                      // that should be served and cannot be, with why
    std::string reason;                                               // why none is served

    friend bool operator==(const Model&, const Model&) = default;
  };
  using Models = std::map<std::string, Model, std::less<>>;

  explicit ModelTable(Models models);

  // An empty name stands for the only model that is known. Version and label: one of them at most, 0 and empty for the
  // newest version served. NOT_FOUND for what the repository does not have, with what is served; UNAVAILABLE for what
  // it has but cannot serve now, with the reason; INVALID_ARGUMENT when a name is needed.
  absl::StatusOr<std::shared_ptr<const ServedModel>> Find(std::string_view model, uint64_t version,
                                                          std::string_view label = {}) const;

  // Served ones, by name and version.
  const std::vector<std::shared_ptr<const ServedModel>>& models() const { return served_; }
  const Models& known() const { return known_; }

 private:
  std::string Describe() const;
  absl::Status NoVersion(const std::string& name, const Model& model, uint64_t version) const;

  const Models known_;
  std::vector<std::shared_ptr<const ServedModel>> served_;
};

class ModelTableReader;

// Holds the table in use and replaces it. Readers look into it without a lock; who replaces it waits until each of
// them has ended the look-up that it was in, and then lets go of the old table: no reader keeps a model alive.
class PublishedModelTable {
 public:
  PublishedModelTable();
  ~PublishedModelTable();

  // Any thread, under a lock.
  std::shared_ptr<const ModelTable> Get() const;
  // Any thread. When it returns, nobody looks into the table before.
  void Publish(std::shared_ptr<const ModelTable> table);

 private:
  friend class ModelTableReader;
  mutable std::mutex mutex_;
  std::shared_ptr<const ModelTable> table_;          // guarded by mutex_
  mutable std::vector<ModelTableReader*> readers_;   // guarded by mutex_
  std::atomic<const ModelTable*> current_{nullptr};  // table_'s
};

class ModelRepository;

// One thread's way into the table of a repository, which must outlive it.
class ModelTableReader {
 public:
  explicit ModelTableReader(const ModelRepository& repository);
  explicit ModelTableReader(const PublishedModelTable& table);
  ~ModelTableReader();
  ModelTableReader(const ModelTableReader&) = delete;
  ModelTableReader& operator=(const ModelTableReader&) = delete;

  // As ModelTable::Find. No lock; the model lives as long as the caller holds it.
  absl::StatusOr<std::shared_ptr<const ServedModel>> Find(std::string_view model, uint64_t version,
                                                          std::string_view label = {});

 private:
  friend class PublishedModelTable;
  const PublishedModelTable& published_;
  // Odd while this thread is in a look-up. On a cache line of its own: nobody else writes near it.
  alignas(64) std::atomic<uint64_t> looks_{0};
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_TABLE_H_
