// The certificate, key and authorities of a TLS port, read again while it serves.
#ifndef HILOMOE_SERVER_TLS_CERTIFICATES_H_
#define HILOMOE_SERVER_TLS_CERTIFICATES_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/security/server_credentials.h"
#include "hilomoe/v1/server_config.pb.h"
#include "prometheus/collectable.h"

namespace hilomoe {

// gRPC's own file watcher (1.51) gives up the certificate in use as soon as the files are unreadable or do not fit
// together, as they are for a moment in every rotation. Here they are verified first, and what is wrong is left alone.
class TlsCertificates {
 public:
  // Reads and verifies the files that `files` names. Errors are FieldErrors: "tls.key_file: ...". `setting` is "tls" or
  // "admin_tls".
  static absl::StatusOr<std::shared_ptr<TlsCertificates>> Load(const std::string& setting, const v1::Tls& files);
  ~TlsCertificates();

  // From now on the files are read so often.
  void Watch(std::chrono::milliseconds interval);
  // Reads the files now. What does not verify, or is not valid at this time while the old certificate is, is logged,
  // once, and the old certificate stays in use.
  void Reload();

  // For one port. Its server must not outlive this. Every new connection gets the certificate of that moment.
  std::shared_ptr<grpc::ServerCredentials> MakeCredentials();

  const std::string& setting() const { return setting_; }
  // When the certificate in use expires, in seconds since the epoch.
  int64_t not_after() const;
  // The files on disk cannot be used, and older ones are.
  bool refuses_files() const;

  // The files' content, and what matters of it.
  struct Content {
    std::string certificate, key, client_ca;
    int64_t not_before = 0, not_after = 0;  // seconds since the epoch
  };

 private:
  class Credentials;
  TlsCertificates(std::string setting, v1::Tls files) : setting_(std::move(setting)), files_(std::move(files)) {}
  absl::StatusOr<Content> ReadFiles() const;

  const std::string setting_;
  const v1::Tls files_;
  std::mutex reload_mutex_;  // taken before mutex_
  mutable std::mutex mutex_;
  std::condition_variable stop_changed_;
  Content content_;          // guarded by mutex_
  uint64_t generation_ = 1;  // of content_
  std::string refusal_;      // why the files on disk are not used; empty: they are
  bool stop_ = false;
  std::thread watcher_;
};

// Their series.
class TlsMetrics : public prometheus::Collectable {
 public:
  explicit TlsMetrics(std::vector<std::shared_ptr<TlsCertificates>> certificates)
      : certificates_(std::move(certificates)) {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::vector<std::shared_ptr<TlsCertificates>> certificates_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_TLS_CERTIFICATES_H_
