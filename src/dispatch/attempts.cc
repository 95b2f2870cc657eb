// Attempts: who gets a task, the offer to it, and what came of it.
#include <algorithm>
#include <numeric>

#include "base/json.h"
#include "base/log.h"
#include "dispatch/queue.h"

namespace ringmaster::dispatch {

using base::Duration;
using task::Outcome;
using Kind = Outcome::Kind;
using namespace std::chrono_literals;

// --- what the engine tells ---

void Dispatcher::adopt(std::shared_ptr<const balance::View> view) {
  view_ = std::move(view);
  std::set<const balance::Replica*> present;
  for (const balance::PoolView& pool : view_->pools) {
    for (const auto& replica : pool.replicas) present.insert(replica.get());
  }
  std::erase_if(connections_, [&](const auto& entry) { return !present.contains(entry.first); });
  std::erase_if(holds_, [&](const auto& entry) { return !present.contains(entry.first); });
  keep_places();
  for (const auto& [pool, waiter] : waiters_) {
    const balance::PoolView* found = view_->find(pool);
    // Only once: workers read it.
    if (found != nullptr && found->status->task_waiters == nullptr) found->status->task_waiters = waiter.get();
    pump(pool);
  }
}

void Dispatcher::exited(const std::shared_ptr<balance::Replica>& replica) {
  for (const auto& [id, live] : offered_) {
    if (live->replica != replica || live->offering == nullptr) continue;
    live->replica_died = true;
    live->offering->cancel();
  }
}

void Dispatcher::replica_ready(std::string_view pool) { pump(pool); }

// --- choosing ---

bool Dispatcher::can_begin(const Queue& queue) const { return !stopping_ && not_ready_.empty() && !queue.state.paused && queue.has_room(); }

bool Dispatcher::usable(const std::shared_ptr<balance::Replica>& replica, Holds holds) const {
  if (!replica->ready()) return false;
  if (holds == Holds::ignore) return true;
  const auto held = holds_.find(replica.get());
  return held == holds_.end() || held->second.until <= loop_.now();
}

// A free replica by the queue's policy. What is known to be busy is not considered.
std::optional<Dispatcher::Place> Dispatcher::choose(Queue& queue, Holds holds, std::span<const std::shared_ptr<balance::Replica>> asked) {
  const balance::PoolView* pool = view_->find(queue.settings.pool);
  if (pool == nullptr) return std::nullopt;
  std::vector<std::size_t> order(pool->replicas.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (queue.settings.policy == balance::Policy::round_robin && !order.empty()) {
    std::ranges::rotate(order, order.begin() + static_cast<std::ptrdiff_t>(queue.turn % order.size()));
  } else if (queue.settings.policy == balance::Policy::least_requests) {
    std::vector<std::pair<std::uint32_t, std::size_t>> loads;  // counts change while one sorts
    for (const std::size_t i : order) loads.emplace_back(pool->replicas[i]->in_flight(), i);
    std::ranges::sort(loads);
    std::ranges::transform(loads, order.begin(), &std::pair<std::uint32_t, std::size_t>::second);
  }
  for (const std::size_t index : order) {
    const auto& replica = pool->replicas[index];
    balance::Ticket ticket;
    if (!usable(replica, holds) || std::ranges::find(asked, replica) != asked.end() || !balance::try_admit_task(*pool, *replica, ticket)) continue;
    queue.turn = index + 1;
    auto& connections = connections_[replica.get()];
    if (!connections) connections = std::make_shared<wire::ConnectionPool>(loop_, replica->endpoint, config_.timeouts.replica_idle);
    return Place{replica, connections, std::move(ticket), false};
  }
  return std::nullopt;
}

// Begins what can be begun, a task of each queue in turn.
void Dispatcher::pump(std::string_view pool) {
  if (pool.empty() || stopping_ || !not_ready_.empty()) return;
  const balance::PoolView* view = view_->find(pool);
  if (view == nullptr) return;
  bool begun = true;
  bool announced = false;
  while (begun || !announced) {
    // Once more after we have said that we wait: what was given back before that nobody told us of.
    if (!begun) {
      view->status->tasks_wait = lacks_a_ticket(pool);
      announced = true;
    }
    begun = false;
    for (const auto& [name, queue] : queues_) {
      if (queue->settings.pool == pool) begun |= begin_next(*queue);
    }
    if (begun) announced = false;
  }
}

// Whether some task would begin if a request gave its ticket back.
bool Dispatcher::lacks_a_ticket(std::string_view pool) const {
  const balance::PoolView* view = view_->find(pool);
  const bool waits = std::ranges::any_of(queues_, [&](const auto& entry) {
    const Queue& queue = *entry.second;
    return queue.settings.pool == pool && !queue.pending.empty() && can_begin(queue);
  });
  return waits && view->max_in_flight != 0 && std::ranges::any_of(view->replicas, [&](const auto& replica) {
           return usable(replica, Holds::respect) && (view->tasks_max == 0 || replica->tasks.load() < view->tasks_max);
         });
}

// The next that waits, out of the queue; null if there is none. Those whose deadline has passed are not begun.
LivePtr Dispatcher::take_first(Queue& queue) {
  while (!queue.pending.empty()) {
    const LivePtr live = *queue.pending.first();
    unqueue(*live);
    if (!task::on_time(live->task, now())) return live;
    scope_.spawn(save(live));
  }
  return nullptr;
}

bool Dispatcher::begin_next(Queue& queue) {
  if (queue.pending.empty() || !can_begin(queue)) return false;
  auto place = choose(queue, Holds::respect);
  if (!place) return false;
  const LivePtr live = take_first(queue);
  if (live == nullptr) return false;
  task::begin_attempt(live->task, place->replica->name, now());
  ++queue.in_progress;
  scope_.spawn(run(queue, live, std::move(*place), false));
  return true;
}

// The path of the question before an offer to this replica; empty: a free ticket is the answer. A server that has registered
// is somebody else's, too, and is always asked (CONTRACT S0).
std::string_view Dispatcher::question(const Queue& queue, const balance::Replica& replica) {
  if (!queue.settings.ask.empty()) return queue.settings.ask;
  return replica.origin == balance::Origin::registered ? "/available" : "";
}

bool Dispatcher::may_ask(const Queue& queue) const {
  if (!queue.settings.ask.empty()) return true;
  const balance::PoolView* pool = view_->find(queue.settings.pool);
  return pool != nullptr && std::ranges::any_of(pool->replicas, [&](const auto& replica) { return !question(queue, *replica).empty(); });
}

// "Are you available to perform this task?" A server of one's own that cannot be asked is not.
Async<bool> Dispatcher::is_available(const Queue& queue, const Place& place) {
  wire::FetchRequest request;
  request.target = question(queue, *place.replica);
  static constexpr std::size_t kAnswerBytesMax = 4096;
  const auto answer = co_await wire::fetch(*place.connections, request, loop_.now() + 2s, kAnswerBytesMax);
  if (!answer || answer->status != 200) co_return false;
  const nlohmann::json body = base::parse_json(answer->body);
  const auto yes = body.is_object() ? body.find("available") : body.end();
  co_return body.is_object() && yes != body.end() && yes->is_boolean() && yes->get<bool>();
}

Async<std::optional<Dispatcher::Place>> Dispatcher::choose_available(Queue& queue) {
  // Whoever wants it now has everybody asked, those too who said no a moment ago.
  std::vector<std::shared_ptr<balance::Replica>> asked;
  while (true) {
    auto place = choose(queue, may_ask(queue) ? Holds::ignore : Holds::respect, asked);
    if (!place || question(queue, *place->replica).empty()) co_return place;
    asked.push_back(place->replica);
    const bool available = co_await is_available(queue, *place);
    if (available) {
      place->asked = true;
      co_return place;
    }
    hold(*place->replica);
  }
}

// It has declined: longer each time, until it takes one.
void Dispatcher::hold(const balance::Replica& replica) {
  Hold& hold = holds_[&replica];
  hold.next = std::clamp<Duration>(hold.next * 2, 20ms, 1s);
  hold.until = loop_.now() + hold.next;
  scope_.spawn(pump_later(replica.pool, hold.next));
}

Async<void> Dispatcher::pump_later(std::string pool, Duration delay) {
  const Code slept = co_await loop_.sleep(delay);
  if (slept != Code::cancelled) pump(pool);
}

// --- an attempt ---

// `begun`: the commit that brought the task has begun the attempt, too.
Async<void> Dispatcher::run(Queue& queue, LivePtr live, Place place, bool begun) {
  const unsigned attempt = live->task.progress.attempt;
  const auto is_mine = [&] { return live->task.progress.state == task::State::in_progress && live->task.progress.attempt == attempt; };
  if (!begun) co_await save(live);
  Outcome outcome{Kind::interrupted, "it was interrupted"};
  if (is_mine()) {
    ++queue.figures.attempts;
    io::Scope offering(loop_);
    live->offering = &offering;
    live->replica = place.replica;
    live->replica_died = place.replica->exited();
    offered_[live->task.id] = live;
    if (live->replica_died) offering.cancel();
    offering.spawn(offer(queue, live, place, outcome));
    co_await offering.join();
    live->offering = nullptr;
    offered_.erase(live->task.id);
    if (offered_.empty()) offer_ended_.notify();
    if (live->replica_died && outcome.kind == Kind::interrupted) outcome = {Kind::failure, "replica '" + place.replica->name + "' died"};
  }
  if (outcome.kind == Kind::unavailable) {
    ++queue.figures.unavailable;
    hold(*place.replica);
  } else {
    holds_.erase(place.replica.get());
  }
  if (outcome.kind == Kind::success) place.ticket.succeeded();
  if (outcome.kind == Kind::failure) place.ticket.failed();
  place.ticket.release();
  --queue.in_progress;
  const bool mine = is_mine();
  if (mine) {
    live->task.progress.crashes = 0;
    queue.figures.failures += outcome.kind == Kind::failure || outcome.kind == Kind::rejected ? 1 : 0;
    CHECK(task::conclude(live->task, attempt, std::move(outcome), queue.back_off, now(), loop_.random()).has_value());
  }
  wake(queue);  // the disk need not be waited for
  if (mine) co_await save(live);
}

// The reason in a replica's answer, for people: what it says if it is JSON of a usual form, else its first characters.
static std::string reason_of(const wire::FetchResponse& response) {
  static constexpr std::size_t kReasonBytesMax = 1000;
  const nlohmann::json body = base::parse_json(response.body);
  for (const char* key : {"detail", "error", "message"}) {
    if (!body.is_object()) break;
    const auto found = body.find(key);
    if (found != body.end() && found->is_string()) return found->get<std::string>().substr(0, kReasonBytesMax);
  }
  return "the replica answered " + std::to_string(response.status) + (response.body.empty() ? "" : ": ") + response.body.substr(0, kReasonBytesMax);
}

static Outcome judge(Result<wire::FetchResponse> response, Duration timeout) {
  if (!response) {
    switch (response.error().code) {
      case Code::cancelled: return {Kind::interrupted, "it was interrupted"};
      case Code::refused:
      case Code::unreachable:
      case Code::full: return {Kind::unavailable, "it could not be reached"};
      case Code::timeout: return {Kind::failure, "no answer within " + std::to_string(timeout / 1ms) + " ms"};
      case Code::too_large: return {Kind::rejected, "the result is too large: " + response.error().detail};
      default: return {Kind::failure, "the connection to the replica broke: " + base::describe(response.error())};
    }
  }
  const unsigned status = response->status;
  if (status >= 200 && status < 300) return {Kind::success, std::move(response->body), std::string(response->field("content-type"))};
  if (status == 503 || status == 429) return {Kind::unavailable, "it is busy"};
  const bool may_work_later = status < 400 || status >= 500 || status == 408 || status == 425;
  return {may_work_later ? Kind::failure : Kind::rejected, reason_of(*response)};
}

Async<void> Dispatcher::offer(Queue& queue, LivePtr live, Place& place, Outcome& outcome) {
  if (!question(queue, *place.replica).empty() && !place.asked) {
    const bool available = co_await is_available(queue, place);
    if (!available) {
      outcome = {Kind::unavailable, "it is busy"};
      co_return;
    }
  }
  place.replica->last_request.store(loop_.now(), std::memory_order_relaxed);
  const Task& task = live->task;
  Millis timeout = task.spec.timeout;
  if (task.progress.deadline != 0) timeout = std::clamp<Millis>(task.progress.deadline - now(), 1, timeout);
  wire::FetchRequest request;
  request.method = "POST";
  request.target = queue.settings.path;
  request.headers = "Content-Type: application/json\r\nRingmaster-Task-Id: " + task::to_text(task.id) + "\r\nRingmaster-Task-Type: " + task.spec.type +
                    "\r\nRingmaster-Task-Attempt: " + std::to_string(task.progress.attempt) + "\r\nRingmaster-Task-Deadline-Ms: " + std::to_string(timeout) +
                    "\r\n";
  request.body = task.spec.payload;
  const Time deadline = loop_.now() + std::chrono::milliseconds(timeout);
  auto response = co_await wire::fetch(*place.connections, request, deadline, config_.tasks.result_bytes_max);
  outcome = judge(std::move(response), std::chrono::milliseconds(timeout));
}

}  // namespace ringmaster::dispatch
