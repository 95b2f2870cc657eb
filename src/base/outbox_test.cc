#include "base/outbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

namespace ringmaster::base {
namespace {

std::string read_until(int fd, std::string_view wanted) {
  std::string got;
  std::array<char, 65536> block{};
  while (!got.contains(wanted)) {
    const ssize_t bytes = ::read(fd, block.data(), block.size());
    if (bytes <= 0) break;
    got.append(block.data(), static_cast<std::size_t>(bytes));
  }
  return got;
}

TEST(Outbox, NeverWaitsForAReaderAndSaysHowMuchItDropped) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  auto* outbox = new Outbox(pipe[1]);  // NOLINT: as in the program, it ends with the process
  const std::string line(999, 'x');
  int taken = 0;
  while (outbox->add(line + "\n")) ++taken;  // would hang here if it waited
  EXPECT_GE(taken, 1000);
  EXPECT_FALSE(outbox->add(line + "\n"));
  outbox->flush(std::chrono::milliseconds(1));  // gives up
  std::string got = read_until(pipe[0], std::string(900, 'x'));
  while (!outbox->add("last\n")) got += read_until(pipe[0], "x\n");
  got += read_until(pipe[0], "last\n");
  EXPECT_TRUE(got.contains(" lines of the log are missing here"));
  EXPECT_TRUE(got.ends_with("last\n"));
  static Outbox* const kept = outbox;  // not a leak
  (void)kept;
}

TEST(Outbox, LosesNothingWhereSomebodyMadeTheDescriptorNonBlocking) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::fcntl(pipe[1], F_SETFL, O_NONBLOCK), 0);
  static Outbox* const outbox = new Outbox(pipe[1]);  // NOLINT: as in the program, it ends with the process
  static constexpr int kLines = 5000;
  const std::string line = std::string(99, 'x') + "\n";
  for (int i = 0; i < kLines; ++i) ASSERT_TRUE(outbox->add(line));
  ASSERT_TRUE(outbox->add("last\n"));
  const std::string got = read_until(pipe[0], "last\n");
  EXPECT_EQ(got.size(), kLines * line.size() + 5);
}

}  // namespace
}  // namespace ringmaster::base
