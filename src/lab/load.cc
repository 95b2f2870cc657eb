#include "lab/load.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/names.h"

namespace ringmaster::lab {

using base::Code;
using namespace std::chrono_literals;

struct Load::Connection {
  unsigned number;
  io::Stream stream;
  std::string text;    // of the request
  std::string server;  // of the answer
  std::string body;
  unsigned status = 0;
  io::Signal given;  // open loop: there is a request for it
};

std::string LoadResult::describe_faults() const {
  std::string text;
  for (const auto& [what, count] : faults) text += (text.empty() ? "" : ", ") + std::to_string(count) + " × " + what;
  return text;
}

Load::Load(io::Loop& loop, LoadPlan plan, Interrupt& interrupt)
    : loop_(loop), plan_(std::move(plan)), interrupt_(interrupt), random_(plan_.seed), connections_(loop), watching_(loop) {
  if (plan_.paths.empty()) plan_.paths = {plan_.target.path};
}

double Load::share_done() const {
  double share = 0;
  const auto ended = static_cast<double>(result_.good + result_.refused + result_.failed);
  const std::uint64_t all = plan_.per_connection != 0 ? plan_.per_connection * plan_.connections : plan_.requests;
  if (all != 0) share = ended / static_cast<double>(all);
  if (plan_.duration > Duration::zero()) {
    share = std::max(share, std::chrono::duration<double>(loop_.now() - begun_) / std::chrono::duration<double>(plan_.duration));
  }
  return std::clamp(share, 0.0, 1.0);
}

Async<void> Load::run() {
  begun_ = last_good_ = loop_.system().now();
  watching_.spawn(watch());
  if (plan_.arrivals == Arrivals::closed) {
    for (unsigned i = 0; i < plan_.connections; ++i) {
      auto connection = std::make_unique<Connection>();
      connection->number = result_.connections++;
      connections_.spawn(closed(std::move(connection)));
    }
  } else {
    connections_.spawn(pace());
  }
  co_await connections_.join();
  watching_.cancel();
  co_await watching_.join();
  result_.took = loop_.system().now() - begun_;
  result_.unfinished += waiting_.size();
  for (const Due& due : waiting_) result_.waited.record(loop_.system().now() - due.at);
  if (!over_) result_.sending = result_.took;
}

// Ends it: when its time is over, when the person has had enough, or when the target seems to be gone.
Async<void> Load::watch() {
  static constexpr Duration kLook = 250ms;
  static constexpr Duration kSilenceMax = 5s;
  static constexpr std::uint64_t kBadMax = 100;
  const Time end = plan_.duration > Duration::zero() ? begun_ + plan_.duration : base::kNever;
  while (!interrupt_.asked() && loop_.now() < end) {
    const Code woken = co_await interrupt_.until(loop_, std::min(end, loop_.now() + kLook));
    if (woken == Code::cancelled) co_return;
    if (plan_.ended && plan_.ended()) break;
    const Duration silence = loop_.now() - last_good_;
    if (bad_in_a_row_ >= kBadMax && silence > kSilenceMax) {
      result_.ended_because = "the target has given no good answer for " + std::to_string(std::chrono::round<std::chrono::seconds>(silence).count()) + " s";
      break;
    }
  }
  result_.interrupted = interrupt_.asked();
  finish();
  if (result_.ended_because.empty() && !interrupt_.asked()) {  // what is under way may end
    co_await interrupt_.until(loop_, loop_.now() + plan_.timeout);
    result_.interrupted = interrupt_.asked();
  }
  connections_.cancel();
}

void Load::finish() {
  if (!over_) result_.sending = loop_.system().now() - begun_;
  over_ = true;
  for (Connection* connection : idle_) connection->given.notify();
  idle_.clear();
}

Async<void> Load::closed(std::unique_ptr<Connection> connection) {
  for (std::uint64_t sent = 0; !over() && (plan_.per_connection == 0 || sent < plan_.per_connection); ++sent) {
    const Time now = loop_.system().now();
    co_await request(*connection, {now, false});
  }
}

// Open loop: gives each request to a connection when it is due.
Async<void> Load::pace() {
  Time due = begun_;
  const Time end = plan_.duration > Duration::zero() ? begun_ + plan_.duration : base::kNever;
  static constexpr std::uint64_t kAtOnceMax = 256;  // when it is behind: then others get their turn
  std::uint64_t given = 0;
  while (!over_ && (plan_.requests == 0 || given < plan_.requests)) {
    const double gap = plan_.arrivals == Arrivals::even ? 1 : -std::log(1 - random_.unit());
    due += std::chrono::duration_cast<Duration>(std::chrono::duration<double>(gap / plan_.rate));
    if (due >= end) break;
    if (due > loop_.system().now() || given % kAtOnceMax == 0) {
      const Code slept = co_await loop_.sleep(due - loop_.now());
      if (slept == Code::cancelled) co_return;
    }
    if (over_) break;
    if (waiting_.size() >= kWaitingMax) {
      result_.ended_because = std::to_string(kWaitingMax) + " requests are due and have no connection";
      break;
    }
    ++given;
    give(due);
  }
  finish();
}

void Load::give(Time due) {
  const bool can_grow = result_.connections < plan_.connections;
  waiting_.push_back({due, !idle_.empty() || can_grow});
  if (!idle_.empty()) {
    idle_.back()->given.notify();
    idle_.pop_back();
  } else if (can_grow) {
    auto connection = std::make_unique<Connection>();
    connection->number = result_.connections++;
    connections_.spawn(open(std::move(connection)));
  }
}

Async<void> Load::open(std::unique_ptr<Connection> connection) {
  while (true) {
    while (!waiting_.empty()) {
      const Due due = waiting_.front();
      waiting_.pop_front();
      co_await request(*connection, due);
      if (connections_.cancelled()) co_return;
    }
    if (over_) co_return;
    idle_.push_back(connection.get());
    const Code given = co_await connection->given.wait(loop_);
    if (given != Code::cancelled) continue;
    std::erase(idle_, connection.get());
    co_return;
  }
}

void Load::compose(std::string& text, std::uint64_t number) const {
  const std::string& pattern = plan_.paths[number % plan_.paths.size()];
  text.assign("GET ");
  if (plan_.path_of) {
    text += plan_.path_of(number);
  } else if (pattern.find("{i}") == std::string::npos) {
    text += pattern;
  } else {
    text += base::replace_all(pattern, "{i}", std::to_string(number));
  }
  text.append(" HTTP/1.1\r\nHost: ").append(plan_.target.host);
  if (plan_.numbered) text.append("\r\nX-Request-Id: lab-").append(std::to_string(number));
  text.append("\r\n\r\n");
}

// One request and its whole answer, left in `c`.
Async<Result<void>> Load::exchange(Connection& c, wire::ResponseReader& reader, std::uint64_t number, Time deadline) {
  // An idle connection that can be read from has ended.
  if (c.stream && c.stream.watch().readable()) c.stream.close();
  if (!c.stream) {
    auto made = co_await io::connect(loop_, plan_.target.endpoint, deadline);
    if (!made) co_return std::unexpected(made.error());
    c.stream = std::move(*made);
  }
  compose(c.text, number);
  const std::array<std::string_view, 1> pieces = {c.text};
  const auto got = co_await wire::ask_for_head(c.stream, reader, http::Method::get, pieces, deadline);
  if (!got) co_return std::unexpected(got.error());
  c.status = reader.head().status;
  c.server.clear();
  c.body.clear();
  if (!plan_.server_field.empty()) {
    if (const http::Field* field = reader.head().fields.find(plan_.server_field)) c.server = field->value;
  }
  while (!reader.complete()) {
    const auto more = co_await reader.read_body(deadline - loop_.now());
    if (!more) co_return std::unexpected(more.error());
    if (c.body.size() < kBodyBytesMax) c.body.append(more->substr(0, kBodyBytesMax - c.body.size()));
  }
  if (!reader.reusable()) c.stream.close();
  co_return Result<void>{};
}

// What a person reads of an error that a connection met.
static std::string fault_of(const base::Error& error, Duration timeout) {
  switch (error.code) {
    case Code::timeout: return "no answer within " + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(timeout).count()) + " s";
    case Code::refused: return "connection refused";
    case Code::reset:
    case Code::closed: return "connection broken before the answer was whole";
    default: return base::describe(error);
  }
}

Async<void> Load::request(Connection& c, Due due) {
  static constexpr Duration kPause = 10ms;  // after a failure: a target that is gone is not asked a million times
  const std::uint64_t number = next_++;
  ++result_.sent;
  std::unique_ptr<wire::ResponseReader> reader = readers_.take();
  const Time sent = loop_.system().now();
  if (due.at_once) result_.lateness.record(sent - due.at);
  const auto answered = co_await exchange(c, *reader, number, sent + plan_.timeout);
  readers_.put(std::move(reader));
  if (answered) {
    static constexpr std::string_view kMark = "Server: ";
    std::string_view server = c.server;
    if (const std::size_t mark = std::string_view(c.body).find(kMark); plan_.server_field.empty() && mark != std::string::npos) {
      server = std::string_view(c.body).substr(mark + kMark.size());
      server = server.substr(0, server.find_first_of("\"\r\n"));
    }
    judge({number, c.number, c.status, server, c.body, due.at, loop_.system().now()}, sent);
    co_return;
  }
  result_.waited.record(loop_.system().now() - due.at);
  c.stream.close();
  if (answered.error().code == Code::cancelled) {
    ++result_.unfinished;
    co_return;
  }
  ++result_.failed;
  blame(fault_of(answered.error(), plan_.timeout));
  co_await loop_.sleep(kPause);
}

void Load::judge(const Answer& answer, Time sent) {
  std::string fault = plan_.check ? plan_.check(answer) : std::string();
  result_.waited.record(answer.at - answer.due);
  const bool enough = answer.status == 429 || answer.status == 503;
  if (answer.status < 200 || answer.status > 299) fault = "status " + std::to_string(answer.status);
  if (enough) {
    ++result_.refused;
  } else if (!fault.empty()) {
    ++result_.failed;
  } else {
    ++result_.good;
    if (!over_) ++result_.good_while_sending;
    result_.latency.record(answer.at - answer.due);
    result_.service.record(answer.at - sent);
    last_good_ = answer.at;
    bad_in_a_row_ = 0;
  }
  if (!fault.empty()) blame(fault);
}

void Load::blame(const std::string& what) {
  static constexpr std::size_t kKindsMax = 50;
  ++bad_in_a_row_;
  if (result_.faults.size() < kKindsMax || result_.faults.contains(what)) {
    ++result_.faults[what];
  } else {
    ++result_.faults["something else"];
  }
}

}  // namespace ringmaster::lab
