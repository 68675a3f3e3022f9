// hilomoe-bench run, hilomoe-bench list.
#ifndef HILOMOE_TOOLS_BENCH_BENCH_COMMAND_H_
#define HILOMOE_TOOLS_BENCH_BENCH_COMMAND_H_

#include "tools/common/command_line.h"

namespace hilomoe::bench {

Command RunCommand();
Command ListCommand();

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_BENCH_COMMAND_H_
