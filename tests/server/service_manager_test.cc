#include "server/service_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <string>

#include "test_model.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

// What systemd has at its end. A name that starts with '@' is one of the abstract namespace.
class NotifySocket {
 public:
  explicit NotifySocket(std::string name) : fd_(socket(AF_UNIX, SOCK_DGRAM, 0)) {
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
    if (name[0] == '@') name[0] = '\0';
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof(address.sun_path));
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size())),
              0);
  }
  ~NotifySocket() {
    close(fd_);
    unsetenv("NOTIFY_SOCKET");
  }
  std::string Receive() const {
    char text[256];
    const ssize_t size = recv(fd_, text, sizeof(text), MSG_DONTWAIT);
    return size < 0 ? "nothing" : std::string(text, static_cast<size_t>(size));
  }

 private:
  int fd_;
};

TEST(ServiceManagerTest, SendsOneDatagram) {
  const TemporaryDirectory directory;
  for (const std::string& name : {directory.path() + "/notify", "@" + directory.path()}) {
    const NotifySocket socket(name);
    EXPECT_TRUE(NotifyServiceManager("READY=1\nSTATUS=serving").ok());
    EXPECT_EQ(socket.Receive(), "READY=1\nSTATUS=serving");
    EXPECT_EQ(socket.Receive(), "nothing");
  }
}

TEST(ServiceManagerTest, DoesNothingWithoutOne) {
  unsetenv("NOTIFY_SOCKET");
  EXPECT_TRUE(NotifyServiceManager("READY=1").ok());
}

TEST(ServiceManagerTest, SaysWhatIsWrong) {
  for (const std::string& wrong :
       {std::string("/nonexistent/notify"), std::string("notify"), "/" + std::string(200, 'x')}) {
    setenv("NOTIFY_SOCKET", wrong.c_str(), 1);
    EXPECT_THAT(std::string(NotifyServiceManager("READY=1").message()), HasSubstr("NOTIFY_SOCKET '" + wrong + "'"));
  }
  unsetenv("NOTIFY_SOCKET");
}

}  // namespace
}  // namespace hilomoe
