// hilomoe-bench load: how fast a large model file is ready to be served from.
#ifndef HILOMOE_TOOLS_BENCH_LOAD_COMMAND_H_
#define HILOMOE_TOOLS_BENCH_LOAD_COMMAND_H_

#include "tools/common/command_line.h"

namespace hilomoe::bench {

Command LoadCommand();

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_LOAD_COMMAND_H_
