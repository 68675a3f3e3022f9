// The closed loop over ScoreStream: a stream on every channel, with `concurrency` requests ahead on each.
#ifndef HILOMOE_TOOLS_CLIENT_STREAM_LOAD_H_
#define HILOMOE_TOOLS_CLIENT_STREAM_LOAD_H_

#include <memory>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "tools/client/load_generator.h"
#include "tools/client/load_recorder.h"

namespace hilomoe {

// A request's latency counts from when it was handed to gRPC. A stream that ends early fails what was ahead on it, and
// is opened anew after 100 ms; all end with the run, the deadline later at the latest.
LoadRun RunStreams(const std::vector<std::shared_ptr<grpc::Channel>>& channels, std::vector<grpc::ByteBuffer> requests,
                   const LoadOptions& options, LoadRecorder* recorder);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_STREAM_LOAD_H_
