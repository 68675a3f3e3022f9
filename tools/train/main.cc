// hilomoe-train: trains models, compares them, scores logs with them, and makes logs to try it on.
#include "tools/common/command_line.h"
#include "tools/train/commands.h"

int main(int argc, char** argv) {
  return hilomoe::RunCommands(
      "hilomoe-train", argc, argv,
      {hilomoe::TrainCommand(), hilomoe::EvaluateCommand(), hilomoe::CompareCommand(), hilomoe::GenerateCommand()});
}
