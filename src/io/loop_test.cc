#include "io/loop.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <thread>

#include "io/listener.h"
#include "io/process.h"
#include "io/real_system.h"
#include "io/resolve.h"
#include "io/stream.h"
#include "io/turns.h"

namespace ringmaster::io {
namespace {

using namespace std::chrono_literals;

// A loop on the real system that runs one coroutine to its end.
class LoopTest : public testing::Test {
 protected:
  RealSystem system;
  Loop loop{system};

  void run(Async<void> body) {
    loop.root().spawn(then_stop(std::move(body)));
    loop.run();
  }
  Async<void> then_stop(Async<void> body) {
    co_await body;
    loop.stop();
  }
  Time in(Duration d) { return loop.now() + d; }
  Handle listen_anywhere() { return std::move(*system.listen(Endpoint::loopback(0), {})); }
};

Async<int> after(Loop& loop, Duration delay, int value) {
  const Code code = co_await loop.sleep(delay);
  co_return code == Code::cancelled ? -1 : value;
}

TEST_F(LoopTest, RaceCancelsTheSlowerAndWaitsForIt) {
  run([](Loop& l) -> Async<void> {
    const Time start = l.now();
    const auto result = co_await race(l, after(l, 2ms, 1), after(l, 10s, 2));
    EXPECT_EQ(result.first_done, 0);
    EXPECT_EQ(result.a, 1);
    EXPECT_EQ(result.b, -1);
    EXPECT_LT(l.now() - start, 5s);
  }(loop));
}

Async<void> take_turn(Loop& loop, Turns& turns, int who, std::string& order) {
  const auto turn = co_await turns.take(loop);
  if (!turn) {
    order += "x";
    co_return;
  }
  order += std::to_string(who);
  co_await loop.sleep(1ms);
}

TEST_F(LoopTest, TurnsGoInTheOrderInWhichTheyWereAskedFor) {
  std::string order;
  run([](Loop& l, std::string& o) -> Async<void> {
    Turns turns;
    Scope scope(l);
    for (int who = 1; who <= 3; ++who) scope.spawn(take_turn(l, turns, who, o));
    // One that comes whenever it can does not get in between.
    for (int i = 0; i < 20 && o.size() < 3; ++i) {
      if (o.size() == 2) scope.spawn(take_turn(l, turns, 4, o));
      co_await l.sleep(200us);
    }
    co_await scope.join();
  }(loop, order));
  EXPECT_EQ(order.substr(0, 3), "123");
}

TEST_F(LoopTest, ATurnThatIsCancelledIsPassedOn) {
  std::string order;
  run([](Loop& l, std::string& o) -> Async<void> {
    Turns turns;
    Scope first(l);
    Scope second(l);
    first.spawn(take_turn(l, turns, 1, o));
    first.spawn(take_turn(l, turns, 2, o));
    second.spawn(take_turn(l, turns, 3, o));
    first.cancel();  // who has the turn ends, and so does who is next
    co_await first.join();
    co_await second.join();
  }(loop, order));
  EXPECT_EQ(order, "1x3");
}

TEST_F(LoopTest, AllWaitsForBoth) {
  run([](Loop& l) -> Async<void> {
    const auto result = co_await all(l, after(l, 4ms, 1), after(l, 1ms, 2));
    EXPECT_EQ(result.a + result.b, 3);
    EXPECT_EQ(result.first_done, 1);
  }(loop));
}

TEST_F(LoopTest, CancellingAScopeReachesNestedRaces) {
  run([](Loop& l) -> Async<void> {
    Scope scope(l);
    bool ended = false;
    scope.spawn([](Loop& inner, bool& flag) -> Async<void> {
      const auto result = co_await race(inner, after(inner, 10s, 1), after(inner, 20s, 2));
      EXPECT_EQ(result.a, -1);
      EXPECT_EQ(result.b, -1);
      flag = true;
    }(l, ended));
    scope.cancel();
    co_await scope.join();
    EXPECT_TRUE(ended);
  }(loop));
}

TEST_F(LoopTest, PostFromAnotherThreadRunsOnTheLoop) {
  const auto loop_thread = std::this_thread::get_id();
  std::thread poster([&] {
    loop.post([&] {
      EXPECT_EQ(std::this_thread::get_id(), loop_thread);
      loop.stop();
    });
  });
  loop.run();
  poster.join();
}

TEST_F(LoopTest, BackgroundWorkRunsOffTheLoop) {
  run([](Loop& l) -> Async<void> {
    std::thread::id worker;
    auto work = l.background([&worker] { worker = std::this_thread::get_id(); });
    EXPECT_TRUE(co_await work);
    EXPECT_NE(worker, std::this_thread::get_id());
  }(loop));
}

Async<void> echo(Stream stream) {
  std::string buffer(1 << 16, '\0');
  while (true) {
    const auto got = co_await stream.read(buffer, stream.watch().loop().now() + 5s);
    if (!got || *got == 0) co_return;
    const std::string_view piece(buffer.data(), *got);
    const auto put = co_await stream.write(std::span(&piece, 1), base::kNever);
    if (!put) co_return;
  }
}

Async<void> send_all(Stream& stream, std::string_view text) {
  const auto put = co_await stream.write(std::span(&text, 1), base::kNever);
  EXPECT_TRUE(put.has_value());
}

Async<std::string> receive(Stream& stream, std::size_t bytes) {
  std::string all;
  std::string block(1 << 16, '\0');
  while (all.size() < bytes) {
    const auto got = co_await stream.read(block, stream.watch().loop().now() + 5s);
    if (!got || *got == 0) break;
    all.append(block, 0, *got);
  }
  co_return all;
}

TEST_F(LoopTest, BytesPassThroughBothWaysWithBackPressure) {
  Listener listener(loop, listen_anywhere());
  loop.root().spawn(listener.serve([&](Stream s) { loop.root().spawn(echo(std::move(s))); }));
  run([](LoopTest& t, Endpoint to, Loop& l) -> Async<void> {
    (void)t;
    auto stream = co_await connect(l, to, l.now() + 5s);
    EXPECT_TRUE(stream.has_value());
    std::string text(4'000'000, 'x');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 26);
    Scope scope(l);
    scope.spawn(send_all(*stream, text));
    const std::string back = co_await receive(*stream, text.size());
    co_await scope.join();
    EXPECT_TRUE(back == text);
  }(*this, listener.local(), loop));
}

TEST_F(LoopTest, ReadsTimeOutAndConnectsAreRefused) {
  Listener listener(loop, listen_anywhere());
  std::vector<Stream> silent;
  loop.root().spawn(listener.serve([&](Stream s) { silent.push_back(std::move(s)); }));
  run([](Endpoint to, Loop& l) -> Async<void> {
    auto stream = co_await connect(l, to, l.now() + 5s);
    std::array<char, 10> buffer{};
    const auto got = co_await stream->read(buffer, l.now() + 5ms);
    EXPECT_EQ(got.error().code, Code::timeout);
    const Endpoint nowhere = Endpoint::unix_socket("/nonexistent/socket");
    auto refused = co_await connect(l, nowhere, l.now() + 5s);
    EXPECT_EQ(refused.error().code, Code::refused);
  }(listener.local(), loop));
  silent.clear();
}

TEST_F(LoopTest, AnAbortedWatchEndsItsReader) {
  Listener listener(loop, listen_anywhere());
  std::vector<Stream> silent;
  loop.root().spawn(listener.serve([&](Stream s) { silent.push_back(std::move(s)); }));
  run([](Endpoint to, Loop& l) -> Async<void> {
    auto stream = co_await connect(l, to, l.now() + 5s);
    l.post([&] { stream->watch().abort(Code::exited); });
    std::array<char, 10> buffer{};
    const auto got = co_await stream->read(buffer, l.now() + 5s);
    EXPECT_EQ(got.error().code, Code::exited);
  }(listener.local(), loop));
  silent.clear();
}

TEST_F(LoopTest, ASecondListenerOnTheSameAddressIsRefusedAndAGroupIsNot) {
  const Handle first = listen_anywhere();
  const Endpoint at = system.local_endpoint(first.fd());
  EXPECT_EQ(system.listen(at, {}).error().code, Code::exists);
  EXPECT_TRUE(system.listen(at, {.reuse_port = true}).has_value());
}

SpawnRequest shell(const std::string& script) {
  SpawnRequest request;
  request.argv = {"/bin/sh", "-c", script};
  request.environment = {"PATH=/usr/bin:/bin", "COLOUR=blue"};
  return request;
}

TEST_F(LoopTest, AChildsOutputAndExitAreSeen) {
  run([](Loop& l) -> Async<void> {
    const SpawnRequest request = shell("echo one; echo $COLOUR >&2; exit 3");
    auto child = l.system().spawn(request);
    EXPECT_TRUE(child.has_value());
    Process process(l, std::move(*child));
    std::vector<std::string> lines;
    co_await read_lines(l, process.take_output(), [&](std::string_view line) { lines.emplace_back(line); });
    const auto status = co_await process.wait(l.now() + 5s);
    EXPECT_EQ(status->code, 3);
    EXPECT_EQ(lines, std::vector<std::string>({"one", "blue"}));
  }(loop));
}

TEST_F(LoopTest, ASignalReachesTheWholeSession) {
  run([](Loop& l) -> Async<void> {
    const SpawnRequest request = shell("sleep 100 & echo $!; wait");
    auto child = l.system().spawn(request);
    Process process(l, std::move(*child));
    std::string grandchild;
    Scope scope(l);
    scope.spawn(read_lines(l, process.take_output(), [&](std::string_view line) {
      grandchild = line;
      process.signal(SIGKILL);
    }));
    const auto status = co_await process.wait(l.now() + 5s);
    EXPECT_EQ(status->signal, SIGKILL);
    co_await scope.join();  // the pipe closes only when the grandchild is gone too
    EXPECT_FALSE(grandchild.empty());
  }(loop));
}

TEST_F(LoopTest, LimitsDirectoryAndInheritedSocketsReachTheChild) {
  run([](Loop& l) -> Async<void> {
    SpawnRequest request = shell("ulimit -n; pwd; echo $LISTEN_FDS; test \"$LISTEN_PID\" = $$ && echo me; test -S /proc/self/fd/3 && echo socket");
    request.limits = {{RLIMIT_NOFILE, 77}};
    request.directory = "/tmp";
    auto listening = l.system().listen(Endpoint::loopback(0), {});
    request.inherited = {listening->fd()};
    request.listen_fds = true;
    auto child = l.system().spawn(request);
    Process process(l, std::move(*child));
    std::string lines;
    co_await read_lines(l, process.take_output(), [&](std::string_view line) { lines += std::string(line) + "|"; });
    (void)co_await process.wait(l.now() + 5s);
    EXPECT_EQ(lines, "77|/tmp|1|me|socket|");
  }(loop));
}

TEST_F(LoopTest, ACommandThatDoesNotExistSaysSo) {
  SpawnRequest request;
  request.argv = {"no-such-command-here"};
  EXPECT_EQ(system.spawn(request).error().detail, "command 'no-such-command-here' does not exist: no such program in PATH");
  request.argv = {"/no/such/file"};
  EXPECT_EQ(system.spawn(request).error().detail, "command '/no/such/file' does not exist");
  request.argv = {"/bin/sh"};
  request.directory = "/no/such/directory";
  EXPECT_NE(system.spawn(request).error().detail.find("working directory"), std::string::npos);
}

TEST_F(LoopTest, FilesAreReplacedWholeAndLocksExclude) {
  const std::string directory = testing::TempDir() + "ringmaster_files";
  ASSERT_TRUE(system.make_directory(directory + "/a/b", 0700, true).has_value());
  const std::string path = directory + "/a/b/file";
  ASSERT_TRUE(system.replace_file(path, "one", true).has_value());
  ASSERT_TRUE(system.replace_file(path, "two", false).has_value());
  EXPECT_EQ(*system.read_file(path), "two");
  EXPECT_EQ(system.read_file(path + "x").error().code, Code::not_found);
  const auto lock = system.lock_file(directory + "/lock");
  EXPECT_TRUE(lock.has_value());
  EXPECT_EQ(system.lock_file(directory + "/lock").error().code, Code::exists);
  EXPECT_EQ(system.replace_file("/dev/full/x", "", false).error().code, Code::internal);
}

TEST_F(LoopTest, NamesAreResolvedOffTheLoop) {
  run([](Loop& l) -> Async<void> {
    const auto local = co_await resolve(l, "localhost.localdomain:80");
    const auto plain = co_await resolve(l, "127.0.0.1:81");
    EXPECT_EQ(base::to_string(plain->at(0)), "127.0.0.1:81");
    const auto unknown = co_await resolve(l, "no-such-host.invalid:80");
    EXPECT_EQ(unknown.error().code, Code::unreachable);
    const auto malformed = co_await resolve(l, "http://x:80");
    EXPECT_EQ(malformed.error().code, Code::invalid);
    EXPECT_TRUE(!local || local->at(0).port == 80);  // whether the name is known is the machine's affair
  }(loop));
}

TEST_F(LoopTest, MessagesCarryDescriptorsAndMemoryIsShared) {
  auto pair = system.message_pair();
  auto memory = system.create_memory(4096);
  auto mine = system.map(memory->fd());
  static_cast<char*>(mine->memory.get())[0] = 'R';
  const int fd = memory->fd();
  EXPECT_EQ(system.send_message(pair->first.fd(), "hello", std::span(&fd, 1)).count, 5);
  std::array<char, 64> buffer{};
  std::vector<Handle> descriptors;
  EXPECT_EQ(system.receive_message(pair->second.fd(), buffer, descriptors).count, 5);
  ASSERT_EQ(descriptors.size(), 1U);
  EXPECT_EQ(system.map(descriptors[0].fd())->text()[0], 'R');
  EXPECT_TRUE(system.receive_message(pair->second.fd(), buffer, descriptors).would_block());
}

}  // namespace
}  // namespace ringmaster::io
