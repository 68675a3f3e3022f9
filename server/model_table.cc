#include "server/model_table.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace hilomoe {
namespace {

// What a request says, fit for a message.
std::string Shown(std::string_view text) { return absl::Utf8SafeCEscape(absl::string_view(text.data(), text.size())); }

}  // namespace

ModelTable::ModelTable(Models models) : known_(std::move(models)) {
  for (const auto& [name, model] : known_) {
    for (const auto& [version, served] : model.versions) served_.push_back(served);
  }
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ModelTable::Find(std::string_view name, uint64_t version,
                                                                    std::string_view label) const {
  if (name.empty() && known_.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("model: must be named; served are ", Describe()));
  }
  const auto found = name.empty() ? known_.begin() : known_.find(name);
  if (found == known_.end()) {
    return absl::NotFoundError(absl::StrCat("model '", Shown(name), "' is not served; served are ", Describe()));
  }
  const Model& model = found->second;
  if (!label.empty()) {
    if (version != 0) return absl::InvalidArgumentError("version and label: give one of them at most");
    const auto labelled = model.labels.find(label);
    if (labelled == model.labels.end()) {
      return absl::NotFoundError(absl::StrCat(
          "model '", found->first, "' has no label '", Shown(label), "'; it has ",
          model.labels.empty() ? "none" : absl::StrJoin(model.labels, ", ", [](std::string* out, const auto& l) {
            absl::StrAppend(out, "'", l.first, "'");
          })));
    }
    version = labelled->second;
  }
  if (version == 0) {
    if (!model.versions.empty()) return model.versions.rbegin()->second;
    return absl::UnavailableError(absl::StrCat("model '", found->first, "' cannot be served now: ", model.reason));
  }
  const auto exact = model.versions.find(version);
  if (exact == model.versions.end()) return NoVersion(found->first, model, version);
  return exact->second;
}

absl::Status ModelTable::NoVersion(const std::string& name, const Model& model, uint64_t version) const {
  if (const auto reason = model.unavailable.find(version); reason != model.unavailable.end()) {
    return absl::UnavailableError(
        absl::StrCat("model '", name, "' version ", version, " cannot be served now: ", reason->second));
  }
  return absl::NotFoundError(
      absl::StrCat("model '", name, "' version ", version, " is not served; served are ", Describe()));
}

std::string ModelTable::Describe() const {
  if (served_.empty()) return "none";
  return absl::StrJoin(served_, ", ", [](std::string* out, const auto& model) {
    absl::StrAppend(out, "'", model->name(), "' version ", model->version());
  });
}

PublishedModelTable::PublishedModelTable() { Publish(std::make_shared<const ModelTable>(ModelTable::Models())); }

PublishedModelTable::~PublishedModelTable() = default;

std::shared_ptr<const ModelTable> PublishedModelTable::Get() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return table_;
}

void PublishedModelTable::Publish(std::shared_ptr<const ModelTable> table) {
  // `table` holds the old one when the lock is gone, and lets go of it at the end.
  const std::lock_guard<std::mutex> lock(mutex_);
  table_.swap(table);
  current_.store(table_.get());
  // A reader that begins to look after the store sees the new table: both sides are sequentially consistent, and the
  // reader says that it looks before it reads current_.
  for (const ModelTableReader* reader : readers_) {
    const uint64_t looks = reader->looks_.load();
    if (looks % 2 == 0) continue;
    while (reader->looks_.load() == looks) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

ModelTableReader::ModelTableReader(const PublishedModelTable& table) : published_(table) {
  const std::lock_guard<std::mutex> lock(published_.mutex_);
  published_.readers_.push_back(this);
}

ModelTableReader::~ModelTableReader() {
  const std::lock_guard<std::mutex> lock(published_.mutex_);
  std::erase(published_.readers_, this);
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ModelTableReader::Find(std::string_view model, uint64_t version,
                                                                          std::string_view label) {
  const uint64_t looks = looks_.load(std::memory_order_relaxed);
  looks_.store(looks + 1);
  absl::StatusOr<std::shared_ptr<const ServedModel>> found = published_.current_.load()->Find(model, version, label);
  looks_.store(looks + 2, std::memory_order_release);
  return found;
}

}  // namespace hilomoe
