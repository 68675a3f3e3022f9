// Waiting for directories to change.
#ifndef HILOMOE_SERVER_DIRECTORY_WATCH_H_
#define HILOMOE_SERVER_DIRECTORY_WATCH_H_

#include <chrono>
#include <set>
#include <string>

namespace hilomoe {

// inotify where there is some: network file systems tell nothing of what other machines do, and the system may have no
// watches left. So whoever waits has to look every now and then as well.
//
// Wake: any thread. The others: one.
class DirectoryWatch {
 public:
  DirectoryWatch();
  ~DirectoryWatch();
  DirectoryWatch(const DirectoryWatch&) = delete;
  DirectoryWatch& operator=(const DirectoryWatch&) = delete;

  // Between Begin and End, Add names all directories that are to be watched from then on, each before it is read, so
  // that what happens after that is not missed. What cannot be watched is left to polling.
  void Begin() { added_.clear(); }
  void Add(const std::string& directory);
  void End();

  // Until a file or directory has been put into a watched directory, written to its end there or taken away, or until
  // Wake, or the timeout. Shortly after a change: a publication consists of several.
  void Wait(std::chrono::milliseconds timeout);
  // Ends the wait that is under way, or the next one.
  void Wake();

 private:
  // Once.
  void Complain(const char* message, int error, const std::string& directory);

  int inotify_ = -1;
  int inotify_error_ = 0;  // why there is none
  int event_ = -1;
  bool complained_ = false;
  std::set<int> watched_, added_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_DIRECTORY_WATCH_H_
