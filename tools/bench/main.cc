// hilomoe-bench: how fast the runtime is, beside what the machine can do.
#include "tools/bench/bench_command.h"
#include "tools/bench/load_command.h"
#include "tools/bench/model_command.h"

int main(int argc, char** argv) {
  return hilomoe::RunCommands("hilomoe-bench", argc, argv,
                              {hilomoe::bench::RunCommand(), hilomoe::bench::ListCommand(),
                               hilomoe::bench::LoadCommand(), hilomoe::bench::ModelCommand()});
}
