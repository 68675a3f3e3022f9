// Shows how far a long loop is. On a terminal one line is redrawn, at most 10 times a second:
//
//   epoch 1  42% [=========>           ]  131,072/312,000 rows  85.3k rows/s  0:02 left  loss 0.4312
//
// and cut to the terminal's width. Elsewhere (a file, a pipe) the same goes out as a plain line once per interval.
//
// Threads: one at a time. Errors: none; what cannot be written is lost.
#ifndef HILOMOE_TOOLS_COMMON_PROGRESS_BAR_H_
#define HILOMOE_TOOLS_COMMON_PROGRESS_BAR_H_

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

namespace hilomoe {

class ProgressBar {
 public:
  struct Options {
    enum class Mode { kDetect, kTerminal, kLines };
    std::string label = {};
    std::string unit = "rows";
    int64_t total = 0;  // of `unit`; 0 = unknown
    Mode mode = Mode::kDetect;
    std::FILE* out = stderr;                   // not owned
    double interval_s = 10;                    // between plain lines
    int columns = 0;                           // of the terminal; 0 = ask it
    std::function<double()> now_seconds = {};  // a steady clock; none = the system's
  };

  explicit ProgressBar(Options options);
  // On a terminal, ends a line that Finish() has not ended, so that an error message starts on its own line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `done` of the total. Cheap when nothing is due: one look at the clock.
  void Update(int64_t done, std::string_view extra = {});
  // For a loop whose total is unknown but whose share is not, as when reading a file by bytes. 0 <= fraction <= 1.
  void UpdateFraction(double fraction, int64_t done, std::string_view extra = {});
  // The last line, with the mean rate and the time taken. Once.
  void Finish(std::string_view extra = {});

 private:
  void Draw(double fraction, std::string_view extra, bool last);

  Options options_;
  bool terminal_ = false;
  bool line_open_ = false;
  bool finished_ = false;
  int64_t done_ = 0;
  double start_ = 0;
  double next_draw_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_PROGRESS_BAR_H_
