#include "cmd/control.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <optional>

#include "base/json.h"
#include "cmd/admin_call.h"
#include "http/target.h"
#include "io/loop.h"
#include "io/real_system.h"

namespace ringmaster::cmd {

using io::Async;
using nlohmann::json;
using namespace std::chrono_literals;

namespace {

// The pool that was named, or the only one.
std::optional<std::string> choose_pool(const ControlOptions& options) {
  if (!options.pool.empty()) return options.pool;
  const auto pools = call(options.admin, "GET", "/v1/pools", nullptr);
  if (!pools) return std::nullopt;
  if (pools->at("pools").size() == 1) return pools->at("pools")[0].at("name").get<std::string>();
  std::fprintf(stderr, "ringmaster: there are several pools: name one with --pool\n");
  return std::nullopt;
}

int change(const ControlOptions& options, const std::string& method) {
  const auto pool = choose_pool(options);
  if (!pool) return 1;
  const auto answer = call(options.admin, method, "/v1/pools/" + *pool + "/replicas", {{"n", options.count}, {"names", options.names}});
  if (!answer) return 1;
  std::string names;
  for (const auto& name : answer->at("names")) names += (names.empty() ? "" : ", ") + name.get<std::string>();
  std::printf("pool %s has %zu replicas: %s\n", pool->c_str(), answer->at("names").size(), names.c_str());
  return 0;
}

}  // namespace

namespace {

// What a replica had answered when it was looked at last, by "pool/slot/name".
using Counts = std::map<std::string, long long>;

// A process by its number, a container by the beginning of its id, others by what they are.
std::string runs_as(const json& replica) {
  const auto pid = replica.value("pid", 0);
  if (pid != 0) return std::to_string(pid);
  const std::string container = replica.value("container", "");
  return container.empty() ? replica.value("origin", "") : container.substr(0, 12);
}

void print_pool(const json& pool, const Counts& before, Counts& now, double seconds) {
  std::printf("\npool %s, %s: %d of %zu ready", pool.value("name", "").c_str(), pool.value("policy", "").c_str(), pool.value("ready", 0),
              pool.at("replicas").size());
  if (pool.value("max_in_flight", 0) > 0) std::printf(", at most %d in flight each", pool.value("max_in_flight", 0));
  if (pool.value("waiting", 0) > 0) std::printf(", %d waiting", pool.value("waiting", 0));
  std::printf("\n  %4s  %-24s %-12s %12s %9s %12s %9s%s\n", "slot", "name", "state", "runs as", "in flight", "requests", "failures",
              seconds > 0 ? "  requests/s" : "");
  for (const json& replica : pool.at("replicas")) {
    const auto requests = replica.value("requests", 0LL);
    const std::string key = pool.value("name", "") + "/" + std::to_string(replica.value("slot", 0)) + "/" + replica.value("name", "");
    const std::string state = replica.value("ejected", false) ? "ejected" : replica.value("state", "");
    std::printf("  %4d  %-24s %-12s %12s %9d %12lld %9lld", replica.value("slot", 0), replica.value("name", "").c_str(), state.c_str(),
                runs_as(replica).c_str(), replica.value("in_flight", 0), requests, static_cast<long long>(replica.value("failures", 0LL)));
    const auto known = before.find(key);
    if (seconds > 0) std::printf("  %10.0f", known == before.end() ? 0.0 : static_cast<double>(std::max(requests - known->second, 0LL)) / seconds);
    std::printf("\n");
    now[key] = requests;
  }
}

void pause(base::Duration duration) {
  io::RealSystem system;
  io::Loop loop(system);
  loop.root().spawn([](io::Loop& l, base::Duration d) -> Async<void> {
    co_await l.sleep(d);
    l.stop();
  }(loop, duration));
  loop.run();
}

void print_status(const json& status, Counts& counts, double seconds) {
  const json& engine = status.at("engine");
  std::printf("Ringmaster %s, engine %d (pid %d, %d workers), up %d s\n", status.value("version", "?").c_str(), engine.value("number", 0),
              engine.value("pid", 0), engine.value("workers", 0), engine.value("uptime_s", 0));
  Counts now;
  for (const json& pool : status.at("pools")) print_pool(pool, counts, now, seconds);
  counts = std::move(now);
}

}  // namespace

int run_status(const ControlOptions& options) {
  if (options.ready) return call(options.admin, "GET", "/readyz", nullptr) ? 0 : 1;
  static constexpr auto kInterval = 1s;
  Counts counts;
  std::optional<base::Time> last;
  while (true) {
    const auto status = call(options.admin, "GET", "/v1/status", nullptr);
    if (!status && !options.watch) return 1;
    if (!status) {  // said already; an engine that is replaced is back in a moment
      pause(kInterval);
      continue;
    }
    if (options.json) {
      std::printf("%s\n", base::json_text(*status, options.watch ? -1 : 2).c_str());
    } else {
      io::RealSystem system;
      const base::Time now = system.now();
      // On a terminal each picture takes the last one's place.
      if (options.watch && ::isatty(STDOUT_FILENO) == 1) std::printf("\033[H\033[2J");
      print_status(*status, counts, last ? std::chrono::duration<double>(now - *last).count() : 0);
      last = now;
    }
    if (!options.watch) return 0;
    std::fflush(stdout);
    pause(kInterval);
  }
}

int run_add(const ControlOptions& options) { return change(options, "POST"); }
int run_rm(const ControlOptions& options) { return change(options, "DELETE"); }

int run_logs(const ControlOptions& options) {
  static constexpr auto kInterval = 500ms;
  const auto pool = choose_pool(options);
  if (!pool) return 1;
  std::uint64_t next = 0;
  while (true) {
    const std::string query = "?name=" + http::percent_encode(options.replica) + "&since=" + std::to_string(next);
    const auto answer = call(options.admin, "GET", "/v1/pools/" + *pool + "/output" + query, nullptr);
    if (!answer) return 1;
    for (const json& line : answer->at("lines")) std::printf("%s\n", line.get<std::string>().c_str());
    if (!options.follow) return 0;
    std::fflush(stdout);
    next = answer->at("next").get<std::uint64_t>();
    pause(kInterval);
  }
}

// A second signal, or an impatient user's Ctrl-C here, need not wait for what drains.
static void await_end(pid_t pid) {
  const auto pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) return;  // it has ended, or is in another container
  pollfd ended{.fd = pidfd, .events = POLLIN, .revents = 0};
  while (::poll(&ended, 1, -1) < 0 && errno == EINTR) {}
  ::close(pidfd);
}

int run_stop(const ControlOptions& options) {
  const auto answer = call(options.admin, "POST", "/v1/stop", json::object());
  if (!answer) return 1;
  std::printf("stopping\n");
  if (options.no_wait) return 0;
  std::fflush(stdout);
  const json master = answer->value("master", json::object());
  const auto pid = master.value("pid", pid_t{0});
  io::RealSystem system;
  if (pid > 0 && system.boot_id() == master.value("boot", "") && system.start_time(pid) == master.value("start", "?")) {
    await_end(pid);
  } else {  // on another machine, in another container, or gone already
    while (answers(options.admin)) pause(200ms);
  }
  return 0;
}

}  // namespace ringmaster::cmd
