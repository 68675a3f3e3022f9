// hilomoe-client echo: its flags.
#ifndef HILOMOE_TOOLS_CLIENT_ECHO_COMMAND_H_
#define HILOMOE_TOOLS_CLIENT_ECHO_COMMAND_H_

#include "tools/common/command_line.h"

namespace hilomoe {

Command EchoCommand();

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_ECHO_COMMAND_H_
