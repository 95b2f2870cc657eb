#include "admin/classic_tasks.h"

#include "admin/json_slice.h"
#include "admin/tasks_api.h"
#include "base/json.h"
#include "dispatch/task_json.h"
#include "io/call.h"

namespace ringmaster::admin {

using base::Code;
using base::Result;
using io::Async;
using nlohmann::json;
using Reply = ClassicTasks::Reply;

static constexpr std::string_view kTask = "/tasks/";

bool ClassicTasks::takes(std::string_view path) { return path == "/tasks" || path == "/get-tasks" || path.starts_with(kTask); }

static Reply reply(unsigned status, const json& body, std::string extra = {}) { return {status, base::json_text(body), std::move(extra), {}}; }

static Reply failure(unsigned status, const std::string& why, std::string extra = {}) {
  const json body = {{"message", "<Error> " + why}, {"status", "failure"}};
  return reply(status, body, std::move(extra));
}

// In S0's words.
static json classic_task(const task::Task& task) {
  const auto state = task.progress.state;
  const char* status = state == task::State::done ? "done" : state == task::State::in_progress ? "in progress" : task::is_final(state) ? "failed" : "pending";
  const json shown = dispatch::task_json(task);
  json value = {{"id", shown["id"]},
                {"status", status},
                {"slave", shown["replica"]},
                {"result", nullptr},
                {"created_at", shown["created_at"]},
                {"started_at", shown["started_at"]},
                {"finished_at", shown["finished_at"]}};
  const json& payload = shown["payload"];
  value["expression"] = payload.is_object() && payload.contains("expression") ? payload["expression"] : json();
  const json& result = shown["result"];
  value["result"] = result.is_object() && result.contains("result") ? result["result"] : result;
  if (!task.progress.error.empty()) value["error"] = task.progress.error;
  if (state == task::State::cancelled || state == task::State::expired) value["error"] = task::name(state);
  return value;
}

// `tasks`: the newest first.
static std::string list_of(const std::vector<task::Task>& tasks) {
  json shown = json::array();
  for (auto one = tasks.rbegin(); one != tasks.rend(); ++one) shown.push_back(classic_task(*one));
  const json value = {{"message", {{"tasks", shown}}}, {"status", "successful"}};
  return base::json_text(value);
}

Async<Result<Reply>> ClassicTasks::answer(io::Loop& here, std::string method, std::string path, std::string body, std::string queue) {
  const std::function<Async<Reply>()> work = [this, method, path, body, queue] { return answer_here(method, path, body, queue); };
  auto reply = co_await io::call<Reply>(scope_, here, work);
  if (reply && !reply->tasks.empty()) reply->body = list_of(reply->tasks);
  co_return reply;
}

Async<Reply> ClassicTasks::answer_here(std::string method, std::string path, std::string body, std::string queue) {
  const bool post = path == "/tasks";
  if (post != (method == "POST") || (!post && method != "GET" && method != "HEAD")) {
    co_return failure(405, std::string("this path takes ") + (post ? "POST" : "GET") + " only", post ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n");
  }
  if (post) co_return co_await submit(std::move(body), std::move(queue));
  if (path == "/get-tasks") co_return co_await list(std::move(queue));
  co_return co_await show(path.substr(kTask.size()), queue);
}

Async<Reply> ClassicTasks::submit(std::string body, std::string queue) {
  const json given = dispatch::parse_json(body);
  if (given.is_discarded()) co_return failure(400, "the body is not JSON");
  const bool whole = given.is_object() && given.size() == 1 && given.contains("expression") && given["expression"].is_string();
  if (!whole) co_return failure(400, "the body must be {\"expression\":\"2*(3+4)\"}");
  const json wanted = {{"queue", queue}, {"type", "expression"}, {"payload", given}, {"admission", "now"}};
  auto submission = parse_submission(wanted, config_, dispatcher_.now(), slice_value(body));
  if (!submission) co_return failure(submission.error().code == Code::too_large ? 413 : 400, submission.error().detail);
  const auto submitted = co_await dispatcher_.submit(std::move(submission->spec), true);
  if (!submitted && submitted.error().code == Code::full) {
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(dispatcher_.retry_after(queue)).count();
    co_return failure(503, "The system is at full capacity.", "Retry-After: " + std::to_string(seconds) + "\r\n");
  }
  if (!submitted) {
    const unsigned status = status_of_task_error(submitted.error().code);
    co_return failure(status, base::describe(submitted.error()), status == 503 ? "Retry-After: 1\r\n" : "");
  }
  // The answer tells of the assignment, even if the task has ended by now.
  json assigned = classic_task((*submitted)->task);
  assigned["status"] = "in progress";
  const std::string name = (*submitted)->task.progress.replica;
  const json value = {{"message", "Task successfully assigned to " + name + "."}, {"task", assigned}, {"status", "successful"}};
  co_return reply(202, value);
}

// Every task, in the order in which they came; of very many the last ones.
Async<Reply> ClassicTasks::list(std::string queue) {
  static constexpr std::size_t kMost = 10'000;
  dispatch::Filter filter;
  filter.queue = std::move(queue);
  auto tasks = co_await dispatcher_.list(filter, INT64_MAX, kMost);
  if (!tasks) co_return failure(status_of_task_error(tasks.error().code), base::describe(tasks.error()));
  co_return Reply{200, list_of({}), {}, std::move(*tasks)};
}

Async<Reply> ClassicTasks::show(std::string text, std::string queue) {
  const auto id = task::parse_id(text);
  if (!id) co_return failure(404, "there is no such task");
  const auto found = co_await dispatcher_.find(*id);
  if (!found) co_return failure(status_of_task_error(found.error().code), base::describe(found.error()));
  if ((*found)->task.spec.queue != queue) co_return failure(404, "there is no such task");
  const json value = {{"task", classic_task((*found)->task)}, {"status", "successful"}};
  co_return reply(200, value);
}

}  // namespace ringmaster::admin
