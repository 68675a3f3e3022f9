#include "tools/common/command_line.h"

#include <algorithm>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

bool AsksForHelp(std::string_view argument) { return argument == "--help" || argument == "-help" || argument == "-h"; }

bool Takes(const Command& command, const absl::CommandLineFlag& flag) {
  // abseil drops the leading slash of a file's name.
  return std::any_of(command.flag_files.begin(), command.flag_files.end(),
                     [&](std::string_view file) { return absl::EndsWith(View(file), flag.Filename()); });
}

std::string ProgramName(const char* path) {
  const std::string_view name = path;
  return std::string(name.substr(name.rfind('/') + 1));
}

std::string CommandsHelp(const std::string& program, absl::Span<const Command> commands) {
  std::string help = absl::StrCat("Usage: ", program, " COMMAND [flags]\n\n");
  for (const Command& command : commands) {
    absl::StrAppendFormat(&help, "  %-8s  %s\n", View(command.name), View(command.summary));
  }
  return absl::StrCat(help, "\n", program, " COMMAND --help lists a command's flags.\n");
}

std::string CommandHelp(const std::string& program, const Command& command) {
  std::string help = absl::StrCat("Usage: ", program, command.name.empty() ? "" : " ", View(command.name), " ",
                                  View(command.usage), "\n\n", View(command.summary), "\n\n");
  std::vector<std::string> lines;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!Takes(command, *flag)) continue;
    const std::string value = flag->DefaultValue();
    lines.push_back(absl::StrFormat("  --%-20s %s%s\n", name, flag->Help(),
                                    value.empty() ? "" : absl::StrCat(" (default: ", value, ")")));
  }
  std::sort(lines.begin(), lines.end());
  for (const std::string& line : lines) help += line;
  return help;
}

// abseil ends the program itself, with code 1, at what it does not know: everything is looked at before it gets to see
// it. Sets *takes_next if the flag's value is the next argument.
absl::Status CheckFlag(const Command& command, std::string_view argument, bool* takes_next) {
  std::string_view text = argument.substr(argument.starts_with("--") ? 2 : 1);
  const size_t equals = text.find('=');
  const std::string_view name = text.substr(0, equals);
  *takes_next = false;
  if (name == "flagfile") return absl::OkStatus();
  const absl::CommandLineFlag* flag = absl::FindCommandLineFlag(View(name));
  bool negated = false;
  if (flag == nullptr && name.starts_with("no")) {
    flag = absl::FindCommandLineFlag(View(name.substr(2)));
    negated = flag != nullptr && flag->IsOfType<bool>();
    if (!negated) flag = nullptr;
  }
  if (flag == nullptr || !Takes(command, *flag)) {
    return absl::InvalidArgumentError(absl::StrCat("unknown flag '--", View(name), "'; see --help"));
  }
  if (equals == std::string_view::npos) {
    *takes_next = !flag->IsOfType<bool>();
  } else if (negated) {
    return absl::InvalidArgumentError(absl::StrCat("'--", View(name), "' takes no value"));
  }
  return absl::OkStatus();
}

absl::Status CheckValue(std::string_view argument, std::string_view value) {
  const std::string_view name = argument.substr(argument.starts_with("--") ? 2 : 1);
  absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(View(name));
  std::string error;
  if (flag == nullptr || flag->ParseFrom(View(value), &error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", View(name), ": '", View(value), "': ", error));
}

absl::Status CheckFlags(const Command& command, const std::vector<std::string_view>& arguments) {
  for (size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
    const std::string_view argument = arguments[i];
    if (argument.size() < 2 || argument[0] != '-') continue;
    bool takes_next = false;
    HILOMOE_RETURN_IF_ERROR(CheckFlag(command, argument, &takes_next));
    const size_t equals = argument.find('=');
    if (equals != std::string_view::npos) {
      HILOMOE_RETURN_IF_ERROR(CheckValue(argument.substr(0, equals), argument.substr(equals + 1)));
    } else if (takes_next) {
      if (++i == arguments.size()) return absl::InvalidArgumentError(absl::StrCat(View(argument), " needs a value"));
      HILOMOE_RETURN_IF_ERROR(CheckValue(argument, arguments[i]));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ParsedCommandLine> ParseCommandLine(int argc, char** argv, absl::Span<const Command> commands) {
  const std::string program = ProgramName(argv[0]);
  ParsedCommandLine parsed;
  // A program that does one thing has one command without a name.
  const bool single = commands.size() == 1 && commands[0].name.empty();
  if (argc < 2) {
    return absl::InvalidArgumentError(absl::StrCat("usage: ", program, single ? "" : " ", View(commands[0].name), " ",
                                                   View(commands[0].usage), "; see --help"));
  }
  const Command* command = commands.data();
  const int first = single ? 1 : 2;
  if (!single) {
    const std::string_view name = argv[1];
    if (AsksForHelp(name) || name == "help") {
      parsed.help = CommandsHelp(program, commands);
      return parsed;
    }
    command = std::find_if(commands.data(), commands.data() + commands.size(),
                           [&](const Command& known) { return known.name == name; });
    if (command == commands.data() + commands.size()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown command '", View(name), "'; see --help"));
    }
  }
  const std::vector<std::string_view> arguments(argv + first, argv + argc);
  if (std::any_of(arguments.begin(), arguments.end(), AsksForHelp)) {
    parsed.help = CommandHelp(program, *command);
    return parsed;
  }
  HILOMOE_RETURN_IF_ERROR(CheckFlags(*command, arguments));
  const std::vector<char*> positional = absl::ParseCommandLine(argc, argv);
  HILOMOE_ASSIGN_OR_RETURN(parsed.job, command->prepare({positional.begin() + first, positional.end()}));
  return parsed;
}

int RunCommands(const char* program, int argc, char** argv, const std::vector<Command>& commands) {
  constexpr int kFailed = 1, kUsage = 2;
  const auto fail = [&](const absl::Status& status, int exit_code) {
    std::fprintf(stderr, "%s: %s\n", program, std::string(status.message()).c_str());
    return exit_code;
  };
  const absl::StatusOr<ParsedCommandLine> parsed = ParseCommandLine(argc, argv, commands);
  if (!parsed.ok()) return fail(parsed.status(), kUsage);
  if (!parsed->help.empty()) {
    std::fputs(parsed->help.c_str(), stdout);
    return 0;
  }
  const absl::Status status = parsed->job(stderr);
  return status.ok() ? 0 : fail(status, kFailed);
}

}  // namespace hilomoe
