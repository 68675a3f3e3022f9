#include "server/tls_certificates.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpc/grpc.h"
#include "grpc/grpc_security.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "model/text_proto.h"
#include "prometheus/metric_family.h"
#include "server/log.h"

namespace hilomoe {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, Free<SSL_CTX_free>>;

Bio Read(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// OpenSSL would ask at the terminal.
int NoPassword(char*, int, int, void*) { return -1; }

// What OpenSSL says of the failure that has just been.
std::string Reason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return reason == nullptr ? "unknown error" : reason;
}

absl::Status WrongFile(const char* field, const std::string& path, const std::string& what) {
  return FieldError(field, absl::StrCat("'", path, "' ", what));
}

// All certificates of a PEM file; text between them is allowed. A broken one is an error, as in a half-written file.
absl::StatusOr<std::vector<Certificate>> ReadCertificates(const char* field, const std::string& path,
                                                          const std::string& text) {
  std::vector<Certificate> certificates;
  const Bio bio = Read(text);
  ERR_clear_error();
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, NoPassword, nullptr)) {
    certificates.emplace_back(certificate);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (certificates.empty() || !at_end) {
    return WrongFile(field, path, absl::StrCat("does not hold certificates in PEM form: ", Reason()));
  }
  ERR_clear_error();
  return certificates;
}

// Since the epoch; 0 for what is no time.
int64_t SecondsOf(const ASN1_TIME* time) {
  std::tm calendar{};
  return ASN1_TIME_to_tm(time, &calendar) == 1 ? timegm(&calendar) : 0;
}

// Does what gRPC is going to do with the content, which would end in a log line there.
absl::Status Verify(const v1::Tls& files, TlsCertificates::Content* content) {
  HILOMOE_ASSIGN_OR_RETURN(std::vector<Certificate> chain,
                           ReadCertificates("certificate_file", files.certificate_file(), content->certificate));
  ERR_clear_error();
  const PrivateKey key(PEM_read_bio_PrivateKey(Read(content->key).get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) {
    return WrongFile("key_file", files.key_file(),
                     absl::StrCat("does not hold an unencrypted private key in PEM form: ", Reason()));
  }
  const Context context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) return absl::InternalError(absl::StrCat("SSL_CTX_new: ", Reason()));
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) {
    return WrongFile("certificate_file", files.certificate_file(), absl::StrCat("cannot be used: ", Reason()));
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1 || SSL_CTX_check_private_key(context.get()) != 1) {
    return WrongFile("key_file", files.key_file(),
                     absl::StrCat("is not the key of certificate_file '", files.certificate_file(), "': ", Reason()));
  }
  if (files.has_client_ca_file()) {
    HILOMOE_RETURN_IF_ERROR(ReadCertificates("client_ca_file", files.client_ca_file(), content->client_ca).status());
  }
  content->not_before = SecondsOf(X509_get0_notBefore(chain.front().get()));
  content->not_after = SecondsOf(X509_get0_notAfter(chain.front().get()));
  return absl::OkStatus();
}

absl::Status ReadInto(const char* field, const std::string& path, std::string* text) {
  absl::StatusOr<std::string> read = ReadFile(path);
  if (!read.ok()) return FieldError(field, std::string(read.status().message()));
  *text = *std::move(read);
  return absl::OkStatus();
}

std::string TimeText(int64_t seconds) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixSeconds(seconds), absl::UTCTimeZone());
}

// Whether clients that know the time take the certificate.
absl::Status CheckTime(const TlsCertificates::Content& content, int64_t now) {
  if (content.not_after < now) {
    return FieldError("certificate_file", absl::StrCat("has expired at ", TimeText(content.not_after)));
  }
  if (content.not_before > now) {
    return FieldError("certificate_file", absl::StrCat("is not valid before ", TimeText(content.not_before)));
  }
  return absl::OkStatus();
}

}  // namespace

// gRPC asks for the certificate before every handshake.
class TlsCertificates::Credentials : public grpc::ServerCredentials {
 public:
  explicit Credentials(TlsCertificates* certificates) : certificates_(certificates) {
    const v1::Tls& files = certificates->files_;
    const auto request = !files.has_client_ca_file() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                         : files.require_client_certificate()
                             ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                             : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY;
    credentials_ = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(request, Fetch, this));
  }
  ~Credentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  // One call at a time.
  static grpc_ssl_certificate_config_reload_status Fetch(void* self, grpc_ssl_server_certificate_config** config) {
    auto* credentials = static_cast<Credentials*>(self);
    TlsCertificates* certificates = credentials->certificates_;
    const std::lock_guard lock(certificates->mutex_);
    if (credentials->generation_ == certificates->generation_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    credentials->generation_ = certificates->generation_;
    const Content& content = certificates->content_;
    const grpc_ssl_pem_key_cert_pair pair = {content.key.c_str(), content.certificate.c_str()};
    // gRPC insists on authorities, also when no client is asked for a certificate; then any will do.
    const std::string& authorities = content.client_ca.empty() ? content.certificate : content.client_ca;
    *config = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  TlsCertificates* const certificates_;
  uint64_t generation_ = 0;  // that gRPC has
  grpc_server_credentials* credentials_ = nullptr;
};

absl::StatusOr<TlsCertificates::Content> TlsCertificates::ReadFiles() const {
  Content content;
  HILOMOE_RETURN_IF_ERROR(ReadInto("certificate_file", files_.certificate_file(), &content.certificate));
  HILOMOE_RETURN_IF_ERROR(ReadInto("key_file", files_.key_file(), &content.key));
  if (files_.has_client_ca_file()) {
    HILOMOE_RETURN_IF_ERROR(ReadInto("client_ca_file", files_.client_ca_file(), &content.client_ca));
  }
  HILOMOE_RETURN_IF_ERROR(Verify(files_, &content));
  return content;
}

absl::StatusOr<std::shared_ptr<TlsCertificates>> TlsCertificates::Load(const std::string& setting,
                                                                       const v1::Tls& files) {
  std::shared_ptr<TlsCertificates> certificates(new TlsCertificates(setting, files));
  absl::StatusOr<Content> content = certificates->ReadFiles();
  if (!content.ok()) return InField(setting, content.status());
  certificates->content_ = *std::move(content);
  if (const absl::Status status = CheckTime(certificates->content_, std::time(nullptr)); !status.ok()) {
    LogWarning("clients will refuse the certificate", {{"error", std::string(InField(setting, status).message())}});
  }
  return certificates;
}

TlsCertificates::~TlsCertificates() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stop_changed_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

void TlsCertificates::Watch(std::chrono::milliseconds interval) {
  watcher_ = std::thread([this, interval] {
    std::unique_lock lock(mutex_);
    while (!stop_changed_.wait_for(lock, interval, [this] { return stop_; })) {
      lock.unlock();
      Reload();
      lock.lock();
    }
  });
}

void TlsCertificates::Reload() {
  const std::lock_guard one_at_a_time(reload_mutex_);  // else older files could be put in place of newer ones
  absl::StatusOr<Content> read = ReadFiles();
  const std::lock_guard lock(mutex_);
  if (const int64_t now = std::time(nullptr); read.ok() && CheckTime(content_, now).ok()) {
    if (const absl::Status status = CheckTime(*read, now); !status.ok()) read = status;
  }
  if (!read.ok()) {
    const std::string refusal(InField(setting_, read.status()).message());
    if (refusal != refusal_) {
      LogError("changed certificate files are not used", {{"error", refusal}});
      refusal_ = refusal;
    }
    return;
  }
  refusal_.clear();
  if (read->certificate == content_.certificate && read->key == content_.key && read->client_ca == content_.client_ca) {
    return;
  }
  content_ = *std::move(read);
  ++generation_;
  LogInfo("certificate changed", {{"setting", setting_}, {"not_after", TimeText(content_.not_after)}});
}

std::shared_ptr<grpc::ServerCredentials> TlsCertificates::MakeCredentials() {
  return std::make_shared<Credentials>(this);
}

int64_t TlsCertificates::not_after() const {
  const std::lock_guard lock(mutex_);
  return content_.not_after;
}

bool TlsCertificates::refuses_files() const {
  const std::lock_guard lock(mutex_);
  return !refusal_.empty();
}

std::vector<prometheus::MetricFamily> TlsMetrics::Collect() const {
  prometheus::MetricFamily expiry{"hilomoe_tls_certificate_expiry_timestamp_seconds",
                                  "When the certificate in use expires.",
                                  prometheus::MetricType::Gauge,
                                  {}};
  prometheus::MetricFamily refused{"hilomoe_tls_certificate_refused",
                                   "1 when the files on disk cannot be used and older ones are.",
                                   prometheus::MetricType::Gauge,
                                   {}};
  for (const auto& certificates : certificates_) {
    prometheus::ClientMetric metric;
    metric.label = {{"setting", certificates->setting()}};
    metric.gauge.value = static_cast<double>(certificates->not_after());
    expiry.metric.push_back(metric);
    metric.gauge.value = certificates->refuses_files() ? 1 : 0;
    refused.metric.push_back(metric);
  }
  return {expiry, refused};
}

}  // namespace hilomoe
