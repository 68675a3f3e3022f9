// A call of either kind as methods see it: raw bytes to be answered with raw bytes.
#ifndef HILOMOE_SERVER_CALL_H_
#define HILOMOE_SERVER_CALL_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/call_loop.h"
#include "server/model_repository.h"

namespace hilomoe {

// Belongs to one thread at a time, from a request's arrival to its answer.
class Call : public Rpc {
 public:
  using Clock = std::chrono::steady_clock;

  // That is to be answered.
  grpc::ByteBuffer* request() { return &request_; }
  grpc::ServerContext& context() { return *context_; }
  const grpc::ServerContext& context() const { return *context_; }
  Clock::time_point arrived() const { return arrived_; }
  // The client has gone or its deadline has passed. Any thread, before the answer.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // Until the deadline, negative behind it. Any thread, before the answer.
  std::chrono::nanoseconds time_left() const { return context_->deadline() - std::chrono::system_clock::now(); }

  // One of them answers the request; the method must not touch the call afterwards.
  virtual void Reply(const grpc::ByteBuffer& response) = 0;
  virtual void Fail(const grpc::Status& status) = 0;  // ends the call

  // The method's, of the request that is to be answered: which model it was admitted for; and for the log, how many
  // candidates it has and how long its stages took, 0 where it did not come so far.
  std::shared_ptr<const ServedModel> model;
  uint32_t num_candidates = 0;
  std::array<uint64_t, kStages> stage_ns{};

  void StartRequest() {
    model.reset();
    num_candidates = 0;
    stage_ns.fill(0);
  }

 protected:
  void Reset() {
    cancelled_.store(false, std::memory_order_relaxed);
    StartRequest();
    request_.Clear();
    context_.emplace();
  }
  void NoteWhetherCancelled() {
    if (context_->IsCancelled()) cancelled_.store(true, std::memory_order_relaxed);
  }

  std::optional<grpc::ServerContext> context_;
  grpc::ByteBuffer request_;
  Clock::time_point arrived_;

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_CALL_H_
