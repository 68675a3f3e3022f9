// hilomoe-client bench: its flags.
#ifndef HILOMOE_TOOLS_CLIENT_BENCH_COMMAND_H_
#define HILOMOE_TOOLS_CLIENT_BENCH_COMMAND_H_

#include "tools/common/command_line.h"

namespace hilomoe {

Command BenchCommand();

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_BENCH_COMMAND_H_
