#include "test_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <thread>
#include <vector>

#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"

namespace hilomoe {
namespace {

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string FromBuffer(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

// Sends one message on a stream of `method` and returns the first one that comes back: enough for health and
// reflection, whose generated code Debian does not ship.
grpc::Status Exchange(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                      const std::string& request, std::string* response) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  int steps = 0;
  const auto wait = [&queue, &steps] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    EXPECT_EQ(tag, &steps);
    return ok;
  };
  const auto stream = stub.PrepareCall(&context, method, &queue);
  stream->StartCall(&steps);
  bool ok = wait();
  if (ok) {
    stream->WriteLast(ToBuffer(request), grpc::WriteOptions(), &steps);
    ok = wait();
  }
  grpc::ByteBuffer buffer;
  if (ok) {
    stream->Read(&buffer, &steps);
    if (wait()) *response = FromBuffer(buffer);
  }
  grpc::Status status;
  stream->Finish(&status, &steps);
  wait();
  return status;
}

// HealthCheckRequest { string service = 1; }
std::string HealthRequest(const std::string& service) {
  return service.empty() ? "" : std::string("\x0A") + static_cast<char>(service.size()) + service;
}

// HealthCheckResponse { ServingStatus status = 1; }
std::string ServingStatus(const std::string& response) {
  if (response == "\x08\x01") return "SERVING";
  if (response == "\x08\x02") return "NOT_SERVING";
  return response == "\x08\x03" ? "SERVICE_UNKNOWN" : "UNKNOWN";
}

}  // namespace

TestClient::TestClient(int port)
    : TestClient("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()) {}

TestClient::TestClient(const std::string& target, const std::shared_ptr<grpc::ChannelCredentials>& credentials)
    : channel_(grpc::CreateChannel(target, credentials)), stub_(v1::ScoringService::NewStub(channel_)) {}

grpc::Status TestClient::Score(const v1::ScoreRequest& request, v1::ScoreResponse* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  return stub_->Score(&context, request, response);
}

std::string TestClient::Health(const std::string& service) {
  std::string response;
  const grpc::Status status = Exchange(channel_, "/grpc.health.v1.Health/Check", HealthRequest(service), &response);
  return status.ok() ? ServingStatus(response) : status.error_message();
}

std::string TestClient::ListServices() {
  // ServerReflectionRequest { string list_services = 7; }
  std::string response;
  const grpc::Status status = Exchange(channel_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                       std::string("\x3A\x01*"), &response);
  return status.ok() ? response : status.error_message();
}

struct HealthWatch::Stream {
  Stream() { context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60)); }
  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  }
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
};

HealthWatch::HealthWatch(int port, const std::string& service) : stream_(std::make_unique<Stream>()) {
  const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  stream_->call =
      grpc::GenericStub(channel).PrepareCall(&stream_->context, "/grpc.health.v1.Health/Watch", &stream_->queue);
  stream_->call->StartCall(this);
  EXPECT_TRUE(stream_->Wait());
  stream_->call->WriteLast(ToBuffer(HealthRequest(service)), grpc::WriteOptions(), this);
  EXPECT_TRUE(stream_->Wait());
  EXPECT_TRUE(Next());
}

bool HealthWatch::Next() {
  grpc::ByteBuffer response;
  stream_->call->Read(&response, this);
  if (!stream_->Wait()) return false;
  status_ = ServingStatus(FromBuffer(response));
  return true;
}

HealthWatch::~HealthWatch() {
  grpc::Status status;
  stream_->context.TryCancel();
  stream_->call->Finish(&status, this);
  stream_->Wait();
}

std::string Scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    if (write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
      char block[4096];
      for (ssize_t n = read(fd, block, sizeof(block)); n > 0; n = read(fd, block, sizeof(block))) {
        answer.append(block, static_cast<size_t>(n));
      }
    }
  }
  close(fd);
  const size_t body = answer.find("\r\n\r\n");
  EXPECT_NE(body, std::string::npos) << answer;
  return body == std::string::npos ? "" : answer.substr(body + 4);
}

double SeriesValue(const std::string& exposition, const std::string& series) {
  std::istringstream lines(exposition);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(series + " ", 0) == 0) return std::stod(line.substr(series.size() + 1));
  }
  return -1;
}

bool WaitUntil(const std::function<bool()>& condition) {
  for (int i = 0; i < 30000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace hilomoe
