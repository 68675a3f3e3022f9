// Log lines: one JSON object a line on stderr: {"time": ..., "level": ..., "message": ..., further fields}.
#ifndef HILOMOE_SERVER_LOG_H_
#define HILOMOE_SERVER_LOG_H_

#include <initializer_list>
#include <string_view>
#include <utility>

#include "nlohmann/json.hpp"

namespace hilomoe {

using LogFields = std::initializer_list<std::pair<const char*, nlohmann::ordered_json>>;

// Any thread. Never on the steady path of a request.
void LogInfo(std::string_view message, LogFields fields = {});
void LogWarning(std::string_view message, LogFields fields = {});
void LogError(std::string_view message, LogFields fields = {});

// Sends the lines of gRPC the same way, and silences protobuf's: what it prints about bytes that cannot be parsed goes
// to the client as a status.
void CaptureLibraryLogs();

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_LOG_H_
