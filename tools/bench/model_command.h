// hilomoe-bench model: its flags.
#ifndef HILOMOE_TOOLS_BENCH_MODEL_COMMAND_H_
#define HILOMOE_TOOLS_BENCH_MODEL_COMMAND_H_

#include "tools/common/command_line.h"

namespace hilomoe::bench {

Command ModelCommand();

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_MODEL_COMMAND_H_
