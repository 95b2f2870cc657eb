#include "lab/program.h"

#include <csignal>
#include <cstdlib>

#include "io/stream.h"

namespace ringmaster::lab {

using base::Result;
using io::Async;
using namespace std::chrono_literals;

Result<std::unique_ptr<Program>> Program::start(io::Loop& loop, std::vector<std::string> arguments) {
  io::SpawnRequest request;
  request.executable = loop.system().own_executable();
  request.argv = {"ringmaster"};
  request.argv.insert(request.argv.end(), arguments.begin(), arguments.end());
  for (const char* name : {"PATH", "HOME", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name))
      request.environment.push_back(std::string(name) + "=" + value);  // NOLINT(concurrency-mt-unsafe): nobody writes it
  }
  auto child = loop.system().spawn(request);
  if (!child) return std::unexpected(child.error());
  return std::unique_ptr<Program>(new Program(loop, std::move(*child)));
}

Program::Program(io::Loop& loop, io::Child child) : loop_(loop), process_(loop, std::move(child)), scope_(loop) {
  static constexpr std::size_t kLinesMax = 8;
  scope_.spawn(io::read_lines(loop, process_.take_output(), [this](std::string_view line) {
    lines_.emplace_back(line);
    if (lines_.size() > kLinesMax) lines_.pop_front();
  }));
  scope_.spawn(follow());
}

Program::~Program() = default;

Async<void> Program::follow() {
  const auto status = co_await process_.wait(base::kNever);
  if (status) running_ = false;
  ended_.notify();
}

std::string Program::last_words() const {
  std::string text;
  for (const std::string& line : lines_) text += (text.empty() ? "" : " | ") + line;
  return text;
}

Async<void> Program::stop() {
  static constexpr base::Duration kGrace = 10s;
  const base::Time deadline = loop_.now() + kGrace;
  process_.signal(SIGTERM);
  while (running_ && loop_.now() < deadline) co_await ended_.wait(loop_, deadline);
  if (running_) kill();
  while (running_) co_await ended_.wait(loop_);
  scope_.cancel();
  co_await scope_.join();
}

}  // namespace ringmaster::lab
