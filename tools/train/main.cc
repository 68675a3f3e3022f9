// hilomoe-train: trains models, reports on the runs, compares them, scores logs with models, and makes logs to try it
// on.
#include "tools/common/command_line.h"
#include "tools/train/commands.h"

int main(int argc, char** argv) {
  return hilomoe::RunCommands("hilomoe-train", argc, argv,
                              {hilomoe::TrainCommand(), hilomoe::EvaluateCommand(), hilomoe::ReportCommand(),
                               hilomoe::CompareCommand(), hilomoe::GenerateCommand()});
}
