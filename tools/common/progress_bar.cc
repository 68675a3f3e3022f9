#include "tools/common/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace hilomoe {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr int kBarCells = 20;
constexpr int kDefaultColumns = 80;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int TerminalColumns(std::FILE* out) {
  winsize size = {};
  if (::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return kDefaultColumns;
}

std::string WithCommas(int64_t value) {
  std::string digits = absl::StrCat(value);
  for (int at = static_cast<int>(digits.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

std::string Rate(double per_second) {
  if (per_second >= 1e6) return absl::StrFormat("%.1fM", per_second / 1e6);
  if (per_second >= 1e3) return absl::StrFormat("%.1fk", per_second / 1e3);
  return absl::StrFormat("%.1f", per_second);
}

std::string Duration(double seconds) {
  const int64_t whole = std::llround(std::clamp(seconds, 0.0, 1e9));
  if (whole >= 3600) {
    return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
}

std::string Bar(double fraction) {
  const int filled = static_cast<int>(fraction * kBarCells);
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < kBarCells) bar += '>';
  bar.resize(kBarCells, ' ');
  return bar;
}

// Cut to so many characters; a UTF-8 sequence is kept or dropped as a whole.
std::string CutToColumns(std::string text, int columns) {
  int shown = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80;
    if (starts_character && ++shown > columns) {
      text.resize(i);
      break;
    }
  }
  return text;
}

}  // namespace

ProgressBar::ProgressBar(Options options) : options_(std::move(options)) {
  if (!options_.now_seconds) options_.now_seconds = SteadySeconds;
  terminal_ = options_.mode == Options::Mode::kTerminal ||
              (options_.mode == Options::Mode::kDetect && ::isatty(::fileno(options_.out)) == 1);
  start_ = options_.now_seconds();
  // A plain line at once would say nothing yet.
  next_draw_ = terminal_ ? start_ : start_ + options_.interval_s;
}

ProgressBar::~ProgressBar() {
  if (!line_open_) return;
  std::fputc('\n', options_.out);
  std::fflush(options_.out);
}

void ProgressBar::Update(int64_t done, std::string_view extra) {
  const double fraction = options_.total > 0 ? static_cast<double>(done) / static_cast<double>(options_.total) : -1;
  UpdateFraction(fraction, done, extra);
}

void ProgressBar::UpdateFraction(double fraction, int64_t done, std::string_view extra) {
  done_ = done;
  if (finished_) return;
  const double now = options_.now_seconds();
  if (now < next_draw_) return;
  next_draw_ = now + (terminal_ ? kRedrawSeconds : options_.interval_s);
  Draw(fraction, extra, false);
}

void ProgressBar::Finish(std::string_view extra) {
  if (finished_) return;
  finished_ = true;
  Draw(1, extra, true);
}

void ProgressBar::Draw(double fraction, std::string_view extra, bool last) {
  const double elapsed = std::max(options_.now_seconds() - start_, 1e-9);
  const bool known = fraction >= 0;
  fraction = std::min(fraction, 1.0);
  std::string line = options_.label;
  if (known && !last) {
    absl::StrAppendFormat(&line, " %3.0f%%", std::floor(100 * fraction));
    if (terminal_) absl::StrAppend(&line, " [", Bar(fraction), "]");
  }
  absl::StrAppend(&line, "  ", WithCommas(done_));
  if (options_.total > 0 && !last) absl::StrAppend(&line, "/", WithCommas(options_.total));
  absl::StrAppend(&line, " ", options_.unit, "  ", Rate(static_cast<double>(done_) / elapsed), " ", options_.unit,
                  "/s");
  if (last) {
    absl::StrAppend(&line, "  in ", Duration(elapsed));
  } else if (known && fraction > 0) {
    absl::StrAppend(&line, "  ", Duration(elapsed * (1 - fraction) / fraction), " left");
  }
  if (!extra.empty()) absl::StrAppend(&line, "  ", View(extra));

  if (terminal_) {
    // The last column stays free: some terminals wrap when it is written.
    const int columns = options_.columns > 0 ? options_.columns : TerminalColumns(options_.out);
    line = absl::StrCat("\r", CutToColumns(std::move(line), columns - 1), "\x1b[K");
  }
  if (!terminal_ || last) line += '\n';
  line_open_ = terminal_ && !last;
  std::fwrite(line.data(), 1, line.size(), options_.out);
  std::fflush(options_.out);
}

}  // namespace hilomoe
