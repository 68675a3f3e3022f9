// Unary rpcs that cost too little to be admitted: answered by the serving thread that reads them.
#ifndef HILOMOE_SERVER_CONTROL_METHOD_H_
#define HILOMOE_SERVER_CONTROL_METHOD_H_

#include <cstddef>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "server/call_endings.h"
#include "server/unary_call.h"

namespace hilomoe {

inline constexpr size_t kMaxControlBytes = 64 << 10;

template <class Request, class Response>
class ControlMethod final : public UnaryMethod {
 public:
  // Must not wait for anything. Any serving thread.
  using Handler = std::function<absl::Status(const Request& request, Response* response)>;

  ControlMethod(RequestFunction request, Handler handler, Method method, ServerMetrics* metrics)
      : UnaryMethod(std::move(request)), handler_(std::move(handler)), endings_(method, metrics) {}

 private:
  void Arrive(Call* call, int thread) override {
    endings_.Start(thread);
    // Parsed, a message may take many times its bytes, and nobody has admitted this one.
    if (call->request()->Length() > kMaxControlBytes) {
      endings_.Fail(call, thread,
                    absl::InvalidArgumentError(absl::StrCat("the request has ", call->request()->Length(),
                                                            " bytes, more than ", kMaxControlBytes)));
      return;
    }
    Request request;
    Response response;
    grpc::ProtoBufferReader bytes(call->request());
    const absl::Status status = request.ParseFromZeroCopyStream(&bytes)
                                    ? handler_(request, &response)
                                    : absl::InvalidArgumentError(absl::StrCat("the request's bytes are not a ",
                                                                              Request::descriptor()->full_name()));
    status.ok() ? endings_.Reply(call, thread, response) : endings_.Fail(call, thread, status);
  }

  const Handler handler_;
  const CallEndings endings_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_CONTROL_METHOD_H_
