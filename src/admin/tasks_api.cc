#include "admin/tasks_api.h"
#include "admin/guard.h"
#include "admin/json_slice.h"
#include "base/json.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>

#include "dispatch/task_json.h"
#include "wire/hangup.h"

namespace ringmaster::admin {

using base::Code;
using base::Result;
using base::Source;
using dispatch::LivePtr;
using dispatch::QueueView;
using http::Method;
using io::Async;
using nlohmann::json;
using task::Millis;

static constexpr std::string_view kTasks = "/v1/tasks";
static constexpr std::string_view kQueues = "/v1/queues";
static constexpr std::string_view kWork = "/v1/work:";
static constexpr std::size_t kBatchMax = 1000;
static constexpr std::size_t kBatchBytesMax = 16 << 20;

static std::string dump(const json& value) { return base::json_text(value) + "\n"; }
static std::unexpected<base::Error> invalid(std::string why) { return base::fail(Code::invalid, std::move(why), Source::client); }

unsigned status_of_task_error(Code code) {
  switch (code) {
    case Code::not_found: return 404;
    case Code::exists: return 409;
    case Code::too_large: return 413;
    case Code::invalid:
    case Code::denied: return 422;
    case Code::disk_full: return 507;
    case Code::full:
    case Code::unavailable:
    case Code::cancelled: return 503;
    default: return 500;
  }
}

TasksApi::TasksApi(const config::Config& config, dispatch::Dispatcher* dispatcher, const wire::Handler& pages)
    : config_(config), dispatcher_(dispatcher), pages_(pages) {}

bool TasksApi::takes(std::string_view path) {
  const auto below = [&](std::string_view root) {
    return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/' || path[root.size()] == ':');
  };
  return below(kTasks) || below(kQueues) || path.starts_with(kWork);
}

Async<void> TasksApi::handle(wire::Exchange& exchange) {
  const Method method = exchange.request().method;
  if (dispatcher_ == nullptr) {
    co_await wire::reply_error(exchange, pages_, 404, "no queue is configured: write one as [queue.default]");
  } else if (method == Method::get || method == Method::head) {
    co_await get(exchange, exchange.path());
  } else if (method == Method::post || method == Method::put) {
    co_await post(exchange, exchange.path());
  } else {
    co_await wire::reply_error(exchange, pages_, 405, "this takes GET, POST and PUT", "Allow: GET, HEAD, POST, PUT\r\n");
  }
}

// --- answers ---

Async<void> TasksApi::reply_json(wire::Exchange& exchange, unsigned status, const json& value, std::string extra) {
  const std::string body = dump(value);
  co_await exchange.reply(status, "application/json", body, extra);
}

Async<void> TasksApi::refuse(wire::Exchange& exchange, const base::Error& error, std::string_view queue) {
  const unsigned status = status_of_task_error(error.code);
  std::string extra;
  json problem = {{"type", "about:blank"}, {"title", http::reason_phrase(status)}, {"status", status}, {"detail", base::describe(error)}};
  if (status == 503) {
    const base::Duration wait = dispatcher_->retry_after(queue);
    extra = "Retry-After: " + std::to_string(std::chrono::ceil<std::chrono::seconds>(wait).count()) + "\r\n";
    problem["retry_after_ms"] = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
    const auto views = dispatcher_->queues();
    if (const QueueView* view = find(views, queue)) {
      problem["in_progress"] = view->in_progress;
      problem["pending"] = view->pending;
      problem["scheduled"] = view->scheduled;
    }
  }
  const std::string body = dump(problem);
  co_await exchange.reply(status, "application/problem+json", body, extra);
}

const QueueView* TasksApi::find(const std::vector<QueueView>& views, std::string_view name) const {
  const auto found = std::ranges::find(views, name, [](const QueueView& view) { return std::string_view(view.settings->name); });
  return found == views.end() ? nullptr : &*found;
}

json TasksApi::show(const task::Task& task) const {
  json value = dispatch::task_json(task);
  if (const std::string what = dispatcher_->waits_for(task); !what.empty()) value["waits_for"] = what;
  return value;
}

static json queue_json(const QueueView& view) {
  json ended = json::object();
  for (const task::State state : {task::State::done, task::State::failed, task::State::cancelled, task::State::expired}) {
    ended[task::name(state)] = view.figures.ended.at(static_cast<std::size_t>(state));
  }
  return {{"name", view.settings->name},
          {"pool", view.settings->pool.empty() ? json() : json(view.settings->pool)},
          {"policy", balance::name(view.settings->policy)},
          {"types", view.settings->types},
          {"paused", view.state.paused},
          {"in_progress_max", view.state.in_progress_max != 0 ? view.state.in_progress_max : view.settings->in_progress_max},
          {"length_max", view.settings->length_max},
          {"scheduled", view.scheduled},
          {"pending", view.pending},
          {"in_progress", view.in_progress},
          {"accepted", view.figures.accepted},
          {"refused", view.figures.refused},
          {"attempts", view.figures.attempts},
          {"ended", ended}};
}

// Waits for the task's end, unless the client leaves.
Async<void> TasksApi::wait_for(wire::Exchange& exchange, const LivePtr& live, unsigned seconds) {
  io::Fiber& fiber = co_await io::this_fiber();
  const wire::HangupGuard guard(exchange.client_watch(), fiber);
  co_await dispatcher_->await_end(live, exchange.loop().now() + std::chrono::seconds(std::min(seconds, kTaskWaitMax)));
}

// --- reading ---

// "…/{id}" and what stands behind it.
static std::optional<std::uint64_t> id_in(std::string_view text) { return task::parse_id(text.substr(0, text.find_first_of("/:"))); }

Async<void> TasksApi::get(wire::Exchange& exchange, std::string_view path) {
  if (path == kTasks) {
    co_await list(exchange);
  } else if (path == kQueues) {
    json queues = json::array();
    for (const QueueView& view : dispatcher_->queues()) queues.push_back(queue_json(view));
    const auto& journal = dispatcher_->journal_figures();
    const json value = {{"queues", queues}, {"store", {{"commits", journal.commits}, {"writes", journal.writes}, {"failures", journal.failures}}}};
    co_await reply_json(exchange, 200, value);
  } else if (path.starts_with("/v1/queues/")) {
    const auto views = dispatcher_->queues();
    const QueueView* view = find(views, path.substr(kQueues.size() + 1));
    const json value = view == nullptr ? json() : queue_json(*view);
    if (view != nullptr) {
      co_await reply_json(exchange, 200, value);
    } else {
      co_await wire::reply_error(exchange, pages_, 404, "there is no such queue");
    }
  } else if (const auto id = path.starts_with("/v1/tasks/") ? id_in(path.substr(kTasks.size() + 1)) : std::nullopt) {
    const std::string_view rest = path.substr(kTasks.size() + 1 + 16);
    if (rest.empty()) {
      co_await show_task(exchange, *id);
    } else if (rest == "/result") {
      co_await show_result(exchange, *id);
    } else if (rest == "/events") {
      co_await stream_events(exchange, *id);
    } else {
      co_await wire::reply_error(exchange, pages_, 404, "of a task there is /result and /events");
    }
  } else if (path.starts_with(kWork)) {
    co_await wire::reply_error(exchange, pages_, 405, "this takes POST", "Allow: POST\r\n");
  } else {
    co_await wire::reply_error(exchange, pages_, 404, "there is no such task: ids are 16 hexadecimal digits");
  }
}

// "?wait=30". False: it is no number, and that has been replied.
Async<bool> TasksApi::wait_as_asked(wire::Exchange& exchange, const LivePtr& live) {
  const auto wait = query_value(exchange.request().query, "wait");
  const auto seconds = wait ? parse_wait("wait=" + *wait) : std::nullopt;
  if (seconds) co_await wait_for(exchange, live, *seconds);
  if (wait && !seconds) co_await wire::reply_error(exchange, pages_, 400, "wait must be whole seconds");
  co_return !wait || seconds;
}

Async<void> TasksApi::show_task(wire::Exchange& exchange, std::uint64_t id) {
  const auto found = co_await dispatcher_->find(id);
  if (!found) {
    co_await refuse(exchange, found.error());
    co_return;
  }
  const bool waited = co_await wait_as_asked(exchange, *found);
  if (!waited) co_return;
  const json value = show((*found)->task);
  co_await reply_json(exchange, 200, value);
}

Async<void> TasksApi::show_result(wire::Exchange& exchange, std::uint64_t id) {
  const auto found = co_await dispatcher_->find(id);
  if (!found) {
    co_await refuse(exchange, found.error());
    co_return;
  }
  const auto waited = co_await wait_as_asked(exchange, *found);
  if (!waited) co_return;
  const task::Progress& progress = (*found)->task.progress;
  if (progress.state == task::State::done) {
    const std::string_view type = progress.result_type.empty() ? std::string_view("application/octet-stream") : std::string_view(progress.result_type);
    // A replica's own bytes, on the address of the admin API: no browser is to run them.
    co_await exchange.reply(200, type, progress.result, "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox\r\n");
  } else if (task::is_final(progress.state)) {
    const std::string why = "the task is " + std::string(task::name(progress.state)) + (progress.error.empty() ? "" : ": " + progress.error);
    co_await wire::reply_error(exchange, pages_, 409, why);
  } else {
    const json value = show((*found)->task);
    co_await reply_json(exchange, 202, value);
  }
}

// Server-sent events: one at once, and one for each change that has been committed, until the task is final.
Async<void> TasksApi::stream_events(wire::Exchange& exchange, std::uint64_t id) {
  static constexpr auto kKeepAlive = std::chrono::seconds(15);
  const auto found = co_await dispatcher_->find(id);
  if (!found) {
    co_await refuse(exchange, found.error());
    co_return;
  }
  if (exchange.request().method == Method::head) {
    co_await wire::reply_error(exchange, pages_, 405, "events are there for GET only", "Allow: GET\r\n");
    co_return;
  }
  const LivePtr& live = *found;
  http::ResponseHead head;
  head.status = 200;
  head.reason = "OK";
  head.minor_version = 1;
  head.framing = http::Framing::chunked;
  head.content_length = 0;
  head.keep_alive = true;
  head.fields.add({"Content-Type", "text/event-stream", http::FieldId::content_type});
  head.fields.add({"Cache-Control", "no-store", http::FieldId::other});
  exchange.begin_forward(head);
  io::Fiber& fiber = co_await io::this_fiber();
  const wire::HangupGuard guard(exchange.client_watch(), fiber);
  bool told = false;
  unsigned seen = 0;
  while (true) {
    co_await dispatcher_->await_commit(live);
    const bool last = task::is_final(live->task.progress.state) || !dispatcher_->not_ready().empty();
    std::string event = ": still here\n\n";
    if (!told || live->commits != seen) event = "event: " + std::string(task::name(live->task.progress.state)) + "\ndata: " + dump(show(live->task)) + "\n";
    told = true;
    seen = live->commits;
    const auto written = co_await exchange.write(event, last);
    if (!written || last) co_return;
    if (live->commits != seen) continue;  // while it was being written
    const Code woken = co_await live->changed.wait(exchange.loop(), exchange.loop().now() + kKeepAlive);
    if (woken == Code::cancelled) co_return;
  }
}

// A cursor names the last task that was shown, and a hash of the filter that it belongs to.
static std::string filter_hash(const dispatch::Filter& filter) {
  const std::string text = (filter.state ? std::string(task::name(*filter.state)) : "") + "\n" + filter.queue + "\n" + filter.type + "\n" + filter.replica;
  return task::to_text(XXH3_64bits(text.data(), text.size())).substr(8);
}

static Result<std::uint64_t> parse_cursor(const std::string& cursor, const dispatch::Filter& filter) {
  const auto id = cursor.size() == 25 && cursor[16] == '-' ? task::parse_id(std::string_view(cursor).substr(0, 16)) : std::nullopt;
  if (!id) return invalid("this is not a cursor that was given here");
  if (cursor.substr(17) != filter_hash(filter)) return invalid("this cursor belongs to another filter");
  return *id;
}

Async<void> TasksApi::list(wire::Exchange& exchange) {
  static constexpr unsigned kLimitMax = 1000;
  const std::string_view query = exchange.request().query;
  dispatch::Filter filter;
  std::string fault;
  if (const auto state = query_value(query, "state")) {
    filter.state = task::parse_state(*state);
    if (!filter.state) fault = "there is no such state; there are scheduled, pending, in_progress, done, failed, cancelled, expired";
  }
  filter.queue = query_value(query, "queue").value_or("");
  filter.type = query_value(query, "type").value_or("");
  filter.replica = query_value(query, "replica").value_or("");
  unsigned limit = 50;
  if (const auto text = query_value(query, "limit")) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error != std::errc{} || end != text->data() + text->size() || limit == 0 || limit > kLimitMax) fault = "limit must be 1 to 1000";
  }
  std::uint64_t before = INT64_MAX;
  if (const auto cursor = query_value(query, "cursor")) {
    const auto parsed = parse_cursor(*cursor, filter);
    if (!parsed) fault = parsed.error().detail;
    before = parsed.value_or(0);
  }
  if (!fault.empty()) {
    co_await wire::reply_error(exchange, pages_, 400, fault);
    co_return;
  }
  auto tasks = co_await dispatcher_->list(filter, before, limit);
  if (!tasks) {
    co_await refuse(exchange, tasks.error());
    co_return;
  }
  json shown = json::array();
  for (const task::Task& one : *tasks) shown.push_back(show(one));
  json value = {{"tasks", std::move(shown)}, {"next", nullptr}};
  if (tasks->size() == limit) value["next"] = task::to_text(tasks->back().id) + "-" + filter_hash(filter);
  co_await reply_json(exchange, 200, value);
}

// --- changing ---

// The body as JSON. Errors have been replied to already.
Async<Result<TasksApi::Parsed>> TasksApi::read_json(wire::Exchange& exchange, std::size_t bytes_max) {
  auto body = co_await read_json_body(exchange, pages_, bytes_max);
  if (!body) co_return base::fail(Code::invalid);
  Parsed parsed{dispatch::parse_json(*body), std::move(*body)};
  const json& value = parsed.value;
  if (value.is_discarded() || !value.is_object()) {
    co_await wire::reply_error(exchange, pages_, 400,
                               value.is_discarded() ? "the body is not JSON, or nested more than 100 deep" : "the body must be a JSON object");
    co_return base::fail(Code::invalid);
  }
  co_return parsed;
}

Async<void> TasksApi::post(wire::Exchange& exchange, std::string_view path) {
  const std::size_t colon = path.rfind(':');
  const std::string_view verb = colon == std::string_view::npos ? std::string_view{} : path.substr(colon + 1);
  const std::string_view subject = path.substr(0, colon);
  const bool is_put = exchange.request().method == Method::put;
  // Those without a body.
  if (!is_put && (verb == "cancel" || verb == "retry" || verb == "resend") && subject.starts_with("/v1/tasks/")) {
    co_await act(exchange, subject.substr(kTasks.size() + 1), verb);
    co_return;
  }
  if (!is_put && (verb == "pause" || verb == "resume") && subject.starts_with("/v1/queues/")) {
    const json body = {{"paused", verb == "pause"}};
    co_await set_queue(exchange, subject.substr(kQueues.size() + 1), body);
    co_return;
  }
  const bool known = is_put ? path.starts_with("/v1/queues/")
                            : path == kTasks || path == "/v1/tasks:batch" ||
                                  (path.starts_with(kWork) && (verb == "lease" || verb == "heartbeat" || verb == "complete" || verb == "fail"));
  if (!known) {
    co_await wire::reply_error(exchange, pages_, 404, "there is nothing to do at '" + std::string(path) + "'");
    co_return;
  }
  static constexpr std::size_t kOther = 16 << 10;  // beside a payload or a result
  const std::size_t bytes_max = verb == "batch"      ? kBatchBytesMax
                                : verb == "complete" ? config_.tasks.result_bytes_max + kOther
                                                     : config_.tasks.payload_bytes_max + kOther;
  const auto body = co_await read_json(exchange, bytes_max);
  if (!body) co_return;
  if (is_put) {
    co_await set_queue(exchange, path.substr(kQueues.size() + 1), body->value);
  } else if (verb == "batch") {
    co_await submit_batch(exchange, *body);
  } else if (verb == "lease") {
    co_await lease(exchange, body->value);
  } else if (path.starts_with(kWork)) {
    co_await report(exchange, verb, body->value);
  } else {
    co_await submit(exchange, *body);
  }
}

Async<void> TasksApi::submit(wire::Exchange& exchange, const Parsed& body) {
  auto submission = parse_submission(body.value, config_, dispatcher_->now(), slice_member(body.text, "payload"));
  if (!submission) {
    co_await refuse(exchange, submission.error());
    co_return;
  }
  const http::Fields& fields = exchange.request().fields;
  if (const http::Field* key = fields.find("Idempotency-Key")) {
    static constexpr std::size_t kKeyBytesMax = 200;
    if (key->value.empty() || key->value.size() > kKeyBytesMax) {
      co_await wire::reply_error(exchange, pages_, 400, "an Idempotency-Key has 1 to 200 characters");
      co_return;
    }
    submission->spec.idempotency_key = key->value;
    const std::string canonical = dump(body.value);
    submission->spec.fingerprint = XXH3_64bits(canonical.data(), canonical.size());
  }
  const http::Field* prefer = fields.find("Prefer");
  const auto wait = prefer == nullptr ? std::nullopt : parse_wait(prefer->value);
  const std::string queue = submission->spec.queue;
  const auto submitted = co_await dispatcher_->submit(std::move(submission->spec), submission->now);
  if (!submitted) {
    co_await refuse(exchange, submitted.error(), queue);
    co_return;
  }
  const dispatch::Live& live = **submitted;
  co_await dispatcher_->await_commit(*submitted);  // it may have been begun since
  if (wait) co_await wait_for(exchange, *submitted, *wait);
  const std::string id = task::to_text(live.task.id);
  std::string extra = "Location: /v1/tasks/" + id + "\r\n";
  if (wait) extra += "Preference-Applied: wait=" + std::to_string(std::min(*wait, kTaskWaitMax)) + "\r\n";
  if (task::is_final(live.task.progress.state)) {
    const json value = show(live.task);
    co_await reply_json(exchange, 200, value, extra);
    co_return;
  }
  // Written out, as this is the answer that has to be quick; the names in it have no characters to escape.
  const std::string& replica = live.task.progress.replica;
  const std::string answer = fmt::format("{{\"id\":\"{}\",\"queue\":\"{}\",\"state\":\"{}\",\"replica\":{}}}\n", id, live.task.spec.queue,
                                         task::name(live.task.progress.state), replica.empty() ? "null" : "\"" + replica + "\"");
  co_await exchange.reply(202, "application/json", answer, extra);
}

Async<void> TasksApi::submit_one(Result<Submission> submission, json& answer) {
  Result<LivePtr> submitted = base::fail(Code::internal);
  if (submission) {
    submitted = co_await dispatcher_->submit(std::move(submission->spec), submission->now);
  } else {
    submitted = std::unexpected(submission.error());
  }
  if (submitted) {
    answer = {{"status", 202}, {"id", task::to_text((*submitted)->task.id)}, {"state", task::name((*submitted)->task.progress.state)}};
  } else {
    answer = {{"status", status_of_task_error(submitted.error().code)}, {"detail", base::describe(submitted.error())}};
  }
}

// All at once, and so in one commit; each has its own answer, in the same order.
Async<void> TasksApi::submit_batch(wire::Exchange& exchange, const Parsed& body) {
  const auto tasks = body.value.find("tasks");
  if (tasks == body.value.end() || !tasks->is_array() || tasks->empty() || tasks->size() > kBatchMax || body.value.size() != 1) {
    co_await wire::reply_error(exchange, pages_, 422, "the body must be {\"tasks\":[…]} with 1 to 1000 tasks");
    co_return;
  }
  std::vector<json> answers(tasks->size());
  io::Scope submitting(exchange.loop());
  const Millis now = dispatcher_->now();
  const auto texts = slice_elements(slice_member(body.text, "tasks"));
  CHECK(texts.size() == answers.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    submitting.spawn(submit_one(parse_submission((*tasks)[i], config_, now, slice_member(texts[i], "payload")), answers[i]));
  }
  co_await submitting.join();
  const json value = {{"tasks", answers}};
  co_await reply_json(exchange, 200, value);
}

Async<void> TasksApi::act(wire::Exchange& exchange, std::string_view text, std::string_view verb) {
  const auto id = task::parse_id(text);
  if (!id) {
    co_await wire::reply_error(exchange, pages_, 404, "there is no such task: ids are 16 hexadecimal digits");
    co_return;
  }
  Result<LivePtr> done = base::fail(Code::internal);
  if (verb == "cancel") {
    done = co_await dispatcher_->cancel(*id);
  } else if (verb == "resend") {
    done = co_await dispatcher_->resend(*id);
  } else {
    done = co_await dispatcher_->retry(*id);
  }
  if (!done) {
    co_await refuse(exchange, done.error());
    co_return;
  }
  const json value = show((*done)->task);
  co_await reply_json(exchange, 200, value);
}

Async<void> TasksApi::set_queue(wire::Exchange& exchange, std::string_view name, const json& body) {
  const auto before = dispatcher_->queues();
  if (find(before, name) == nullptr) {
    co_await wire::reply_error(exchange, pages_, 404, "there is no such queue");
    co_return;
  }
  std::optional<bool> paused;
  std::optional<unsigned> in_progress_max;
  std::string fault;
  for (const auto& [member, value] : body.items()) {
    if (member == "paused" && value.is_boolean()) {
      paused = value.get<bool>();
    } else if (member == "in_progress_max") {
      const auto most = number_of(body, "in_progress_max", 0, 0, 1'000'000);
      if (!most) fault = most.error().detail;
      in_progress_max = static_cast<unsigned>(most.value_or(0));
    } else {
      fault = "a queue has 'paused' (true or false) and 'in_progress_max' to set";
    }
  }
  if (!fault.empty()) {
    co_await wire::reply_error(exchange, pages_, 422, fault);
    co_return;
  }
  const std::string queue(name);
  const auto set = co_await dispatcher_->set_queue(queue, paused, in_progress_max);
  if (!set) {
    co_await refuse(exchange, set.error());
    co_return;
  }
  const auto after = dispatcher_->queues();
  const json value = queue_json(*find(after, queue));
  co_await reply_json(exchange, 200, value);
}

}  // namespace ringmaster::admin
