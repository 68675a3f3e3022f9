// Log lines: one JSON object a line on stderr: {"time": ..., "level": ..., "message": ..., further fields}.
//
// A thread of its own writes them, from a queue of kQueuedLogLines: where nobody reads stderr or its disk is full, the
// oldest lines that wait are dropped and counted, and no other thread waits. What is queued when the process is killed
// is lost.
#ifndef HILOMOE_SERVER_LOG_H_
#define HILOMOE_SERVER_LOG_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "nlohmann/json.hpp"

namespace hilomoe {

inline constexpr size_t kQueuedLogLines = 1024;

enum class LogLevel { kInfo, kWarning, kError };
using LogFields = std::initializer_list<std::pair<const char*, nlohmann::ordered_json>>;

// Any thread. Never on the steady path of a request: they allocate, and take a lock for the time of a few moves.
void LogInfo(std::string_view message, LogFields fields = {});
void LogWarning(std::string_view message, LogFields fields = {});
void LogError(std::string_view message, LogFields fields = {});
// The same with fields made elsewhere, an object.
void LogObject(LogLevel level, std::string_view message, const nlohmann::ordered_json& fields);

// Lines that were dropped, or that could not be written.
uint64_t DroppedLogLines();
// Waits until all lines so far are written or dropped; false: not in time. To be called before the process ends.
bool FlushLog(std::chrono::milliseconds at_most);

// Sends the lines of gRPC the same way, and silences protobuf's: what it prints about bytes that cannot be parsed goes
// to the client as a status.
void CaptureLibraryLogs();

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_LOG_H_
