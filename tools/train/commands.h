// The sub-commands of hilomoe-train.
#ifndef HILOMOE_TOOLS_TRAIN_COMMANDS_H_
#define HILOMOE_TOOLS_TRAIN_COMMANDS_H_

#include "tools/common/command_line.h"

namespace hilomoe {

Command TrainCommand();
Command EvaluateCommand();
Command CompareCommand();
Command GenerateCommand();
Command ReportCommand();

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMMANDS_H_
