// hilomoe-client score: its flags.
#ifndef HILOMOE_TOOLS_CLIENT_SCORE_COMMAND_H_
#define HILOMOE_TOOLS_CLIENT_SCORE_COMMAND_H_

#include "tools/common/command_line.h"

namespace hilomoe {

Command ScoreCommand();

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_SCORE_COMMAND_H_
