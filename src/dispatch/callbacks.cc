// Callbacks: whoever asked for it is told of a task's end by a POST to a URL that the configuration allows.
//
// Delivered at least once: that it is due is committed with the end of the task, and that it was told after the answer. The
// body is signed, with the time in the signature, so that the receiver can tell a replay:
//
//   Ringmaster-Signature: t=1700000000,v1=hex(HMAC-SHA256(secret, "1700000000." + body))
#include <algorithm>

#include "base/hmac.h"
#include "base/json.h"
#include "base/log.h"
#include "dispatch/queue.h"
#include "dispatch/task_json.h"
#include "io/resolve.h"

namespace ringmaster::dispatch {

using base::Duration;
using namespace std::chrono_literals;

// One try: whether it was told. Redirects are not followed: only what the configuration names is called.
static Async<Result<void>> post(io::Loop& loop, const std::string& url, const std::string& secret, const std::string& body) {
  static constexpr std::string_view kScheme = "http://";
  const std::string rest = url.substr(kScheme.size());
  const std::size_t slash = rest.find('/');
  const std::string authority = rest.substr(0, slash);
  const bool has_port = authority.rfind(':') != std::string::npos && !authority.ends_with(']');
  const std::string address = has_port ? authority : authority + ":80";
  const auto endpoints = co_await io::resolve(loop, address);
  if (!endpoints) co_return std::unexpected(endpoints.error());
  const auto time = std::to_string(std::chrono::duration_cast<std::chrono::seconds>(loop.system().wall_now().time_since_epoch()).count());
  wire::FetchRequest request;
  request.method = "POST";
  request.target = rest.substr(slash);
  request.host = authority;
  request.headers = "Content-Type: application/json\r\nRingmaster-Signature: t=" + time + ",v1=" + base::hmac_sha256(secret, time + "." + body) + "\r\n";
  request.body = body;
  request.head_only = true;
  const auto answer = co_await wire::fetch(loop, endpoints->front(), request, loop.now() + 10s, 0);
  if (!answer) co_return std::unexpected(answer.error());
  if (answer->status < 200 || answer->status >= 300) co_return base::fail(Code::unavailable, "it answered " + std::to_string(answer->status));
  co_return Result<void>{};
}

bool Dispatcher::may_call(const std::string& url) const {
  const bool allowed = std::ranges::any_of(config_.tasks.callbacks, [&](const std::string& base_url) {
    return url == base_url || (url.starts_with(base_url) && (base_url.ends_with('/') || url[base_url.size()] == '/'));
  });
  // Nor may it climb out of what is allowed, in any spelling.
  return allowed && std::ranges::none_of(std::array{"..", "%2e", "%2E", "\\"}, [&](const char* way) { return url.contains(way); });
}

// The task is read when its turn has come: many may be due, and their receiver may be down.
Async<Result<void>> Dispatcher::tell_once(std::uint64_t id) {
  auto found = co_await find(id);
  if (!found) co_return std::unexpected(found.error());
  Task& task = (*found)->task;
  if (!may_call(task.spec.callback)) co_return base::fail(Code::denied, "its URL is not allowed any more");
  const std::string body = base::json_text(task_json(task));
  auto posted = co_await post(loop_, task.spec.callback, config_.tasks.callback_secret, body);
  co_return posted;
}

Async<void> Dispatcher::tell(std::uint64_t id) {
  static constexpr unsigned kAtOnce = 32;
  const config::Tasks& settings = config_.tasks;
  const task::BackOff back_off{settings.callback_back_off / 1ms, settings.callback_back_off_max / 1ms};
  Result<void> told;
  for (unsigned tries = 1; tries <= settings.callback_tries; ++tries) {
    while (telling_ >= kAtOnce) {
      const Code woken = co_await told_.wait(loop_);
      if (woken == Code::cancelled) co_return;
    }
    ++telling_;
    told = co_await tell_once(id);
    --telling_;
    told_.notify();
    if (!told && told.error().code == Code::cancelled) co_return;  // still due for the next owner
    if (told || tries == settings.callback_tries || told.error().code == Code::denied || told.error().code == Code::not_found) break;
    const Code slept = co_await loop_.sleep(std::chrono::milliseconds(task::delay(back_off, tries, loop_.random())));
    if (slept == Code::cancelled) co_return;
  }
  if (!told) base::log::warning("task {}: its callback was not told: {}", task::to_text(id), base::log::printable(base::describe(told.error())));
  const auto found = co_await find(id);
  if (!found) co_return;
  (*found)->task.progress.callback = told ? task::Callback::told : task::Callback::given_up;
  co_await save(*found);
}

}  // namespace ringmaster::dispatch
