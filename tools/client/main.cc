// hilomoe-client: what a batch job and an engineer do with a running server.
#include "tools/client/bench_command.h"
#include "tools/client/echo_command.h"
#include "tools/client/score_command.h"
#include "tools/common/command_line.h"

int main(int argc, char** argv) {
  return hilomoe::RunCommands("hilomoe-client", argc, argv,
                              {hilomoe::ScoreCommand(), hilomoe::BenchCommand(), hilomoe::EchoCommand()});
}
