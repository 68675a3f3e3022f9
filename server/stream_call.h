// Calls with a stream of requests and a stream of responses on a CallLoop: raw bytes, one response for each request,
// one request at a time. The next one is read while the response is written: what a client sends ahead waits in
// gRPC's flow control, and a client that does not read its responses is not worked for.
#ifndef HILOMOE_SERVER_STREAM_CALL_H_
#define HILOMOE_SERVER_STREAM_CALL_H_

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "grpcpp/support/async_stream.h"
#include "server/call.h"

namespace hilomoe {

class StreamCall;

using ByteStream = grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

class StreamMethod : public RpcMethod {
 public:
  // RequestX of a generated raw service.
  using RequestFunction = std::function<void(grpc::ServerContext* context, ByteStream* stream,
                                             grpc::ServerCompletionQueue* queue, void* tag)>;
  explicit StreamMethod(RequestFunction request) : request_(std::move(request)) {}

 protected:
  friend class StreamCall;
  // A request has come, on serving thread `thread`: to be answered at once, or given to CallLoop::Admit.
  virtual void Arrive(Call* call, int thread) = 0;
  // It has been admitted: to be answered.
  virtual void Evaluate(Call* call, int thread) = 0;

  std::unique_ptr<Rpc> New(CallLoop* loop) final;
  // Those that wait for a request end at once, the others with their next response.
  void EndCalls() final;

 private:
  void Link(StreamCall* call);
  void Unlink(StreamCall* call);

  const RequestFunction request_;
  std::mutex mutex_;
  StreamCall* open_ = nullptr;  // list of the open ones, guarded by mutex_
  std::atomic<bool> ending_{false};
};

class StreamCall final : public Call {
 public:
  StreamCall(CallLoop* loop, StreamMethod* method) : loop_(loop), method_(method) {}

  void Reply(const grpc::ByteBuffer& response) override;
  void Fail(const grpc::Status& status) override;

 private:
  friend class StreamMethod;
  // What is pending. The thread that ends the last transfer owns the call, as long as it has not been ended.
  enum Pending : uint32_t { kReading = 1, kWriting = 2, kEnded = 4 };

  void Post() override;
  void Evaluate(int thread) override { method_->Evaluate(this, thread); }
  void OnArrived(bool ok, int thread);
  void OnRead(bool ok, int thread);
  void OnWritten(bool ok, int thread);
  void OnDone(bool ok, int thread);
  void OnFinished(bool ok, int thread);
  void Transferred(Pending transfer, int thread);
  // Ends the call if the server waits for the client's next request and for nothing else. True: it is ended, by this
  // or by another thread.
  bool EndIfIdle();
  // False: the last one is gone.
  bool AddReference();
  void Release();

  CallLoop* const loop_;
  StreamMethod* const method_;
  std::optional<ByteStream> stream_;
  std::atomic<uint32_t> pending_{0};
  bool read_ = false, written_ = false;               // how the last transfers ended
  std::atomic<int> references_{0};                    // events that will come, and the work on a request
  StreamCall *previous_ = nullptr, *next_ = nullptr;  // in the method's list, with its mutex
  MemberTag<StreamCall, &StreamCall::OnArrived> arrived_tag_{this};
  MemberTag<StreamCall, &StreamCall::OnRead> read_tag_{this};
  MemberTag<StreamCall, &StreamCall::OnWritten> written_tag_{this};
  MemberTag<StreamCall, &StreamCall::OnDone> done_tag_{this};
  MemberTag<StreamCall, &StreamCall::OnFinished> finished_tag_{this};
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_STREAM_CALL_H_
