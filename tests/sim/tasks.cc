#include "tasks.h"

#include <algorithm>

#include "base/hmac.h"
#include "io/sim_system.h"

namespace ringmaster::sim {

using nlohmann::json;

static constexpr const char* kSecret = "0123456789abcdef";
static constexpr std::uint16_t kAdminPort = 5001;
static constexpr std::uint16_t kReceiverPort = 7000;
static constexpr unsigned kFailuresMax = 3;

const char* TaskSide::config() {
  return R"(
[pool.work]
command = ["server", "{socket}", "{slot}", "work"]
replicas = 2
[pool.work.tasks]
per_replica = 2
[pool.work.health]
path = "/heartbeat"
interval = "200ms"
timeout = "200ms"
fall = 2
rise = 1
kill_after = "1s"
[tasks]
callbacks = ["http://127.0.0.1:7000/done"]
callback_secret = "0123456789abcdef"
callback_tries = 1000
callback_back_off = "20ms"
callback_back_off_max = "200ms"
[queue.work]
pool = "work"
failures_max = 3
back_off = "10ms"
back_off_max = "100ms"
timeout = "300ms"
[queue.line]
pool = "work"
in_progress_max = 1
failures_max = 3
back_off = "10ms"
back_off_max = "100ms"
timeout = "300ms"
[queue.pull]
failures_max = 3
back_off = "10ms"
back_off_max = "100ms"
)";
}

static json parse(const std::string& text) { return json::parse(text, nullptr, false); }
static bool is_final(const std::string& state) { return state == "done" || state == "failed" || state == "cancelled" || state == "expired"; }
static std::string text_of(const TaskBook::Key& key) { return "task " + key.first + ", attempt " + std::to_string(key.second); }

static std::string field_of(const wire::Exchange& exchange, std::string_view name) {
  const http::Field* field = exchange.request().fields.find(name);
  return field == nullptr ? "" : std::string(field->value);
}

// --- the server's part ---

namespace {

// An execution ends with the fiber that does it, however that ends.
class Present {
 public:
  Present(std::vector<Execution*>& present, Execution& one, io::Loop& loop) : present_(present), one_(one), loop_(loop) { present_.push_back(&one_); }
  Present(const Present&) = delete;
  Present& operator=(const Present&) = delete;
  ~Present() { end(); }
  void end() {
    if (one_.ended != base::kNever) return;
    one_.left = one_.client->hung_up() || one_.answer.empty();
    one_.client = nullptr;
    one_.ended = loop_.now();
    std::erase(present_, &one_);
  }

 private:
  std::vector<Execution*>& present_;
  Execution& one_;
  io::Loop& loop_;
};

}  // namespace

Async<void> TaskSide::work(wire::Exchange& exchange, std::vector<Execution*>& present) {
  io::Loop& loop = exchange.loop();
  const TaskBook::Key key{field_of(exchange, "Ringmaster-Task-Id"), static_cast<unsigned>(std::stoul(field_of(exchange, "Ringmaster-Task-Attempt")))};
  const std::string queue = field_of(exchange, "Ringmaster-Task-Type");
  const auto body = co_await exchange.read_whole_body(1 << 16);
  if (!body) co_return;
  if (++book_.offered[key] > 1) fault(text_of(key) + " was offered twice");
  const double fate = loop.random().unit();
  if (fate < 0.06) {
    co_await exchange.reply(503, "text/plain", "busy");
    co_return;
  }
  Execution& one = book_.executions.emplace_back(Execution{.task = key.first, .attempt = key.second, .queue = queue, .began = loop.now()});
  const json payload = parse(*body);
  if (!payload.is_object()) fault(text_of(key) + " has no payload");
  one.priority = payload.is_object() ? payload.value("p", 0) : 0;
  one.client = &exchange.client_watch();
  book_.executed[key] = &one;
  ++counts_["attempts executed"];
  Present here(present, one, loop);
  if (present.size() > kPerReplica) {
    for (Execution* each : present) each->suspect = true;
    loop.root().spawn(check_crowd(loop, present));
  }
  Duration time = std::chrono::microseconds(200 + loop.random().below(20000));
  if (fate > 0.97) time += 500ms;  // beyond its timeout
  const base::Code slept = co_await loop.sleep(time);
  if (slept == base::Code::cancelled) co_return;
  // A hang-up may be on its way.
  if (one.suspect) co_await loop.sleep(50ms);
  one.answer = fate < 0.14 ? "failed" : fate < 0.17 ? "rejected" : "done";
  here.end();
  if (one.answer == "done") {
    const std::string answer = json{{"by", key.first + "/" + std::to_string(key.second)}}.dump();
    co_await exchange.reply(200, "application/json", answer);
  } else {
    const unsigned status = one.answer == "failed" ? 500 : 400;
    co_await exchange.reply(status, "text/plain", "so it was drawn");
  }
}

// Too many at once as the server saw it: so they were, unless somebody had hung up before and the news was on its way.
Async<void> TaskSide::check_crowd(io::Loop& loop, std::vector<Execution*> crowd) {
  const base::Code slept = co_await loop.sleep(100ms);
  if (slept == base::Code::cancelled) co_return;
  const auto stayed = std::ranges::count_if(crowd, [](const Execution* one) { return one->client != nullptr ? !one->client->hung_up() : !one->left; });
  if (stayed > kPerReplica) fault("a server had " + std::to_string(stayed) + " tasks at once, of at most " + std::to_string(kPerReplica));
}

// --- callbacks ---

ReceiverProgram::ReceiverProgram(io::SimProcess& process, TaskSide& tasks) : loop_(process.loop()), tasks_(tasks), server_(loop_, *this, {}) {
  auto listening = process.systems[0]->listen(base::Endpoint::loopback(kReceiverPort), {});
  if (listening) server_.listen(std::move(*listening));
}

Async<void> ReceiverProgram::end() {
  co_await server_.stop(loop_.now());
  ended_ = true;
}

Async<void> TaskSide::told(wire::Exchange& exchange) {
  io::Loop& loop = exchange.loop();
  const std::string signature = field_of(exchange, "Ringmaster-Signature");
  const auto body = co_await exchange.read_whole_body(1 << 20);
  if (!body) co_return;
  const std::string time = signature.substr(2, signature.find(',') - 2);
  if (signature != "t=" + time + ",v1=" + base::hmac_sha256(kSecret, time + "." + *body)) fault("a callback is not signed as it should be");
  const json task = parse(*body);
  if (!is_final(task.value("state", ""))) fault("a callback came before its task's end: " + *body);
  observe(task, Time::min(), "callback");
  const std::string id = task.value("id", "");
  if (!known_[id].submission || !known_[id].submission->callback) fault("task " + id + " asked for no callback");
  ++counts_["callbacks"];
  const double fate = loop.random().unit();
  if (fate < 0.15) {
    co_await exchange.reply(500, "text/plain", "not now");
    co_return;
  }
  ++known_[id].told;
  if (fate < 0.25) {
    const base::Code slept = co_await loop.sleep(50ms);
    if (slept == base::Code::cancelled) co_return;
  }
  co_await exchange.reply(204, "", "");
}

// --- clients ---

void TaskSide::begin(io::Loop& loop, unsigned submitters, unsigned workers) {
  for (unsigned i = 0; i < submitters; ++i) {
    ++clients_;
    loop.root().spawn(submitter(loop));
  }
  for (unsigned i = 0; i < workers; ++i) loop.root().spawn(worker(loop, "worker-" + std::to_string(i)));
}

static wire::FetchRequest request(std::string method, std::string target, std::string body, std::string headers = {}) {
  wire::FetchRequest made;
  made.method = std::move(method);
  made.target = std::move(target);
  made.headers = std::move(headers);
  if (!body.empty()) made.headers += "Content-Type: application/json\r\n";
  made.body = std::move(body);
  return made;
}

Async<std::optional<wire::FetchResponse>> TaskSide::ask(io::Loop& loop, const wire::FetchRequest& request) {
  const base::Endpoint admin = base::Endpoint::loopback(kAdminPort);
  auto answer = co_await wire::fetch(loop, admin, request, loop.now() + 2s, 1 << 20);
  if (!answer) co_return std::nullopt;
  co_return std::move(*answer);
}

Async<void> TaskSide::submitter(io::Loop& loop) {
  static constexpr std::array kQueues = {"work", "line", "pull"};
  while (!stopping_) {
    Submission& one = submissions_.emplace_back();
    one.number = static_cast<unsigned>(submissions_.size());
    if (loop.random().below(5) != 0) one.key = "key-" + std::to_string(one.number);
    one.queue = kQueues.at(loop.random().below(3));
    one.priority = static_cast<int>(loop.random().below(5)) - 2;
    one.callback = loop.random().below(2) == 0;
    co_await submit(loop, one);
    if (one.accepted) co_await meddle(loop, one);
    const base::Code slept = co_await loop.sleep(std::chrono::microseconds(loop.random().below(60000)));
    if (slept == base::Code::cancelled) break;
  }
  --clients_;
}

Async<void> TaskSide::submit(io::Loop& loop, Submission& one) {
  json task = {{"queue", one.queue}, {"type", one.queue}, {"priority", one.priority}, {"payload", {{"n", one.number}, {"p", one.priority}}}};
  if (one.callback) task["callback"] = "http://127.0.0.1:7000/done";
  one.delayed = loop.random().below(8) == 0;
  if (one.delayed) task["delay_ms"] = loop.random().below(300);
  const std::string body = task.dump();
  // Without a key it cannot be sent again; with one it is, sometimes even after it was accepted.
  for (unsigned tries = 0; tries < (one.key.empty() ? 1U : 8U); ++tries) {
    const wire::FetchRequest answer_request = request("POST", "/v1/tasks", body, one.key.empty() ? "" : "Idempotency-Key: " + one.key + "\r\n");
    const auto answer = co_await ask(loop, answer_request);
    ++counts_["tasks submitted"];
    if (!answer) {
      one.unclear = true;
    } else if (answer->status == 202 || answer->status == 200) {
      const std::string id = parse(answer->body).value("id", "");
      if (id.empty()) fault("an accepted task has no id: " + answer->body);
      one.ids.insert(id);
      known_[id].submission = &one;
      if (!one.accepted) ++counts_["tasks accepted"];
      if (!one.accepted) one.accepted = loop.now();
      if (one.ids.size() > 1) fault("one Idempotency-Key has brought two tasks: " + *one.ids.begin() + ", " + *one.ids.rbegin());
      if (loop.random().below(6) != 0) break;
    } else {
      // 409: an earlier try is still under way. Else what is broken at the moment.
      const bool allowed = answer->status == 503 || answer->status == 507 ||
                           (answer->status == 500 && database_may_fail && answer->body.contains("tasks.db: ") && !answer->body.contains("UNIQUE")) ||
                           (answer->status == 409 && tries > 0);
      if (!allowed) fault("a task was refused with " + std::to_string(answer->status) + ": " + answer->body);
      ++counts_["tasks refused"];
      if (answer->status == 409 || answer->status == 500) one.unclear = true;
    }
    const base::Code slept = co_await loop.sleep(std::chrono::milliseconds(10 + loop.random().below(100)));
    if (slept == base::Code::cancelled) co_return;
  }
}

Async<void> TaskSide::meddle(io::Loop& loop, Submission& one) {
  const std::string target = "/v1/tasks/" + *one.ids.begin();
  const double fate = loop.random().unit();
  if (fate < 0.3) co_await loop.sleep(std::chrono::milliseconds(loop.random().below(60)));
  const Time asked = loop.now();
  if (fate < 0.15) {
    ++one.cancels;
    const wire::FetchRequest answer_request = request("POST", target + ":cancel", "");
    const auto answer = co_await ask(loop, answer_request);
    if (answer && answer->status == 200) ++counts_["cancels"];
    if (answer && answer->status == 404) fault("an accepted task is not known: " + target);
    if (answer && answer->status == 200) observe(parse(answer->body), asked, "cancel");
    if (fate > 0.1) co_return;
    ++one.retries;
    const wire::FetchRequest again_request = request("POST", target + ":retry", "");
    const auto again = co_await ask(loop, again_request);
    if (again && again->status == 200) ++counts_["retries"];
  } else if (fate < 0.5) {
    const wire::FetchRequest answer_request = request("GET", target + (fate < 0.4 ? "?wait=1" : ""), "");
    const auto answer = co_await ask(loop, answer_request);
    if (answer && answer->status == 404) fault("an accepted task is not known: " + target);
    if (answer && answer->status == 200) observe(parse(answer->body), asked, "GET");
  } else if (fate < 0.55) {
    // Only what failed can be tried again; others refuse.
    ++one.retries;
    const wire::FetchRequest again_request = request("POST", target + ":retry", "");
    const auto again = co_await ask(loop, again_request);
    if (again && again->status == 200) ++counts_["retries"];
  }
}

// Goes on until all is over: else what waits in its queue would never end.
Async<void> TaskSide::worker(io::Loop& loop, std::string name) {
  while (!audited_) {
    const json wanted = {{"queue", "pull"}, {"worker", name}, {"n", 1 + loop.random().below(3)}, {"lease_ms", 150}, {"wait_s", loop.random().below(2)}};
    const wire::FetchRequest answer_request = request("POST", "/v1/work:lease", wanted.dump());
    const auto answer = co_await ask(loop, answer_request);
    if (answer && answer->status == 200) {
      const json given = parse(answer->body);
      for (const json& task : given["tasks"]) {
        const TaskBook::Key key{task.value("id", ""), task.value("attempt", 0U)};
        if (++book_.leased[key] > 1) fault(text_of(key) + " was leased twice");
        ++counts_["leases"];
        loop.root().spawn(work_at(loop, task));
      }
    }
    const base::Code slept = co_await loop.sleep(std::chrono::milliseconds(1 + loop.random().below(20)));
    if (slept == base::Code::cancelled) co_return;
  }
}

Async<void> TaskSide::work_at(io::Loop& loop, json task) {
  const TaskBook::Key key{task.value("id", ""), task.value("attempt", 0U)};
  const json name = {{"id", key.first}, {"attempt", key.second}};
  const double fate = loop.random().unit();
  if (fate < 0.05) co_return;  // it has died, and its lease runs out
  for (unsigned beats = loop.random().below(3); beats > 0; --beats) {
    const base::Code slept = co_await loop.sleep(40ms);
    if (slept == base::Code::cancelled) co_return;
    json beat = name;
    beat["lease_ms"] = 150;
    const wire::FetchRequest answer_request = request("POST", "/v1/work:heartbeat", beat.dump());
    const auto answer = co_await ask(loop, answer_request);
    if (answer && answer->status == 200) ++counts_["heartbeats"];
    if (answer && answer->status == 409) co_return;
  }
  json report = name;
  if (fate >= 0.15) report["result"] = {{"by", key.first + "/" + std::to_string(key.second)}};
  if (fate < 0.15) report["error"] = "so it was drawn";
  if (fate < 0.07) report["final"] = true;
  const Time asked = loop.now();
  book_.concluded[key] = fate >= 0.15 ? "done" : fate < 0.07 ? "rejected" : "failed";
  const wire::FetchRequest answer_request = request("POST", fate >= 0.15 ? "/v1/work:complete" : "/v1/work:fail", report.dump());
  const auto answer = co_await ask(loop, answer_request);
  if (answer && answer->status == 200) observe(parse(answer->body), asked, "report");
}

// --- what must have held ---

void TaskSide::observe(const json& task, Time asked, const char* where) {
  const std::string id = task.value("id", "");
  const std::string state = task.value("state", "");
  const unsigned number = task.contains("payload") && task["payload"].is_object() ? task["payload"].value("n", 0U) : 0;
  if (number == 0 || number > submissions_.size()) {
    fault("nobody has submitted task " + id + ", seen by " + where + ": " + task.dump());
    return;
  }
  Submission& submission = submissions_[number - 1];
  submission.ids.insert(id);
  if (submission.ids.size() > 1) fault("submission " + std::to_string(number) + " has brought two tasks, seen by " + where);
  Known& known = known_[id];
  known.submission = &submission;
  if (!is_final(state)) {
    const bool back = std::ranges::any_of(known.conclusions, [&](const Conclusion& one) { return one.seen < asked; });
    if (back && submission.retries == 0) fault("task " + id + " had ended as " + known.conclusions[0].what + ", and is " + state + " for " + where);
    return;
  }
  const std::string what = state + ", attempt " + std::to_string(task.value("attempt", 0U)) + ", " + task["result"].dump() + ", " + task["error"].dump();
  if (std::ranges::any_of(known.conclusions, [&](const Conclusion& one) { return one.what == what; })) return;
  known.conclusions.push_back({what, state, world_.now()});
  if (known.conclusions.size() > 1 + submission.retries || (known.conclusions.size() > 1 && known.conclusions.front().state == "done")) {
    fault("task " + id + " has ended twice: " + known.conclusions.front().what + "; for " + where + " as " + what);
  }
  judge_conclusion(task, known);
}

// That it ended so must have a reason.
void TaskSide::judge_conclusion(const json& task, const Known& known) {
  const TaskBook::Key key{task.value("id", ""), task.value("attempt", 0U)};
  const std::string state = task.value("state", "");
  ++counts_["tasks " + state];
  const auto executed = book_.executed.find(key);
  const auto reported = book_.concluded.find(key);
  const std::string did = executed != book_.executed.end() ? executed->second->answer : reported != book_.concluded.end() ? reported->second : "";
  if (state == "done") {
    const std::string by = task["result"].is_object() ? task["result"].value("by", "") : "";
    if (did != "done" || by != key.first + "/" + std::to_string(key.second)) fault(text_of(key) + " is done, and nobody has done it: " + task.dump());
  } else if (state == "failed") {
    const std::string error = task["error"].is_string() ? task["error"].get<std::string>() : "";
    const bool tired = task.value("failures", 0U) >= kFailuresMax || error.contains("the engine ended during the attempt, ");
    if (error.empty() || (!tired && did != "rejected")) fault(text_of(key) + " has failed without a reason: " + task.dump());
  } else if (state == "cancelled") {
    if (known.submission->cancels == 0) fault(text_of(key) + " is cancelled, which nobody wanted");
  } else {
    fault(text_of(key) + " has expired without a deadline");
  }
}

Async<void> TaskSide::audit(io::Loop& loop) {
  while (true) {
    missing_.clear();
    listed_.clear();
    std::string cursor;
    do {
      const Time asked = loop.now();
      const wire::FetchRequest answer_request = request("GET", "/v1/tasks?limit=200" + (cursor.empty() ? "" : "&cursor=" + cursor), "");
      const auto answer = co_await ask(loop, answer_request);
      if (!answer || answer->status != 200) {
        missing_ = answer ? answer->body : "no answer";
        break;
      }
      const json page = parse(answer->body);
      for (const json& task : page["tasks"]) {
        listed_.insert(task.value("id", ""));
        observe(task, asked, "the list");
        const bool untold = task.contains("callback") && task["callback"].value("state", "") != "told";
        if (!is_final(task.value("state", "")) || untold) missing_ = task.dump();
      }
      cursor = page["next"].is_string() ? page["next"].get<std::string>() : "";
    } while (!cursor.empty());
    if (missing_.empty()) break;
    const base::Code slept = co_await loop.sleep(500ms);
    if (slept == base::Code::cancelled) co_return;
  }
  audited_ = true;
}

void TaskSide::judge() {
  if (!audited_) fault("not every task has ended and been told of: " + missing_);
  for (const Submission& one : submissions_) {
    const std::string who = "submission " + std::to_string(one.number);
    if (one.accepted && !listed_.contains(*one.ids.begin())) fault(who + " was accepted as " + *one.ids.begin() + ", and is lost");
    if (!one.accepted && !one.unclear && !one.ids.empty()) fault(who + " was refused, and is there all the same");
  }
  for (const std::string& id : listed_) {
    const Known& known = known_[id];
    if (known.submission == nullptr) continue;  // observe() has said so
    if (audited_ && known.conclusions.empty()) fault("task " + id + " has no end");
    if (audited_ && known.submission->callback && known.told == 0) fault("nobody was told of task " + id);
  }
  judge_order();
}

// The queue "line" has one place. When it becomes free, it is the most urgent one's: nobody who was accepted before that, was
// never offered to anybody, and is more urgent may begin later than another.
void TaskSide::judge_order() {
  std::vector<const Execution*> line;
  std::map<std::string, const Execution*> first;
  for (const Execution& one : book_.executions) {
    if (one.queue != "line") continue;
    line.push_back(&one);
    first.try_emplace(one.task, &one);
  }
  for (std::size_t i = 1; i < line.size(); ++i) {
    const Execution& before = *line[i - 1];
    const Execution& one = *line[i];
    if (before.left || before.ended == base::kNever || before.ended > one.began) continue;  // when its place became free nobody knows
    ++counts_["turns judged"];
    for (std::size_t k = i + 1; k < line.size(); ++k) {
      const Execution& later = *line[k];
      const Submission* submission = known_[later.task].submission;
      if (first[later.task] != &later || later.attempt != 1 || submission == nullptr) continue;
      if (submission->delayed || submission->cancels > 0 || submission->retries > 0) continue;
      if (submission->accepted && *submission->accepted < before.ended && later.priority > one.priority) {
        fault("task " + later.task + " (priority " + std::to_string(later.priority) + ") had to wait for " + one.task + " (priority " +
              std::to_string(one.priority) + "), which came after it");
      }
    }
  }
}

}  // namespace ringmaster::sim
