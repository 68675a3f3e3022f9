// Sub-commands, each with abseil flags of its own: `hilomoe-client score --output=scores.csv log.csv`. A program that
// does one thing has one command with an empty name.
#ifndef HILOMOE_TOOLS_COMMON_COMMAND_LINE_H_
#define HILOMOE_TOOLS_COMMON_COMMAND_LINE_H_

#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace hilomoe {

// What a command line asks for, ready to run; messages for people go to the file.
using Job = std::function<absl::Status(std::FILE* messages)>;

struct Command {
  std::string_view name;
  std::string_view usage;                    // "[flags] LOG"
  std::string_view summary;                  // one line
  std::vector<std::string_view> flag_files;  // the source files (__FILE__) whose flags it takes
  // Reads the flags and the arguments after the command's name. INVALID_ARGUMENT says which is wrong.
  std::function<absl::StatusOr<Job>(const std::vector<std::string>& arguments)> prepare;
};

struct ParsedCommandLine {
  std::string help;  // not empty: print this instead of running
  Job job;
};

// Sets the flags. INVALID_ARGUMENT names an unknown command, a flag that the command does not have, or a value that a
// flag does not take. Flags: --name=value, --name value, --name and --noname for a bool, --flagfile=path.
absl::StatusOr<ParsedCommandLine> ParseCommandLine(int argc, char** argv, absl::Span<const Command> commands);

// The body of a main: parses, prints help or runs. Exit codes: 0, 1 when the command failed, 2 for a wrong command
// line; an error goes to stderr as one line that begins with the program's name.
int RunCommands(const char* program, int argc, char** argv, const std::vector<Command>& commands);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_COMMAND_LINE_H_
