#include "cmd/task.h"

#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "base/json.h"
#include "base/log.h"
#include "cmd/admin_call.h"
#include "http/target.h"

namespace ringmaster::cmd {

using nlohmann::json;

namespace {

// Printable: a result is a server's own text, and must not speak to the terminal.
std::string text_of(const json& value) {
  return value.is_null() ? "-" : base::log::printable(value.is_string() ? value.get<std::string>() : base::json_text(value));
}

void print_line(const json& task) {
  const json& outcome = task.at("state") == "done" ? task.at("result") : task.at("error");
  std::string last = text_of(outcome).substr(0, 60);
  if (task.contains("waits_for")) last = "waits for " + text_of(task["waits_for"]);
  std::printf("%s  %-11s  %-12s  %-16s  %s\n", text_of(task.at("id")).c_str(), text_of(task.at("state")).c_str(), text_of(task.at("type")).c_str(),
              text_of(task.at("replica")).c_str(), last.c_str());
}

void print_whole(const json& task) { std::printf("%s\n", task.dump(2, ' ', true, json::error_handler_t::replace).c_str()); }

// A bar on a terminal: "[=====>    ] 5000 tasks, 12 refused".
void print_progress(std::uint64_t bytes, std::uint64_t bytes_all, std::size_t accepted, std::size_t refused) {
  static constexpr std::uint64_t kWidth = 40;
  if (::isatty(STDERR_FILENO) != 1) return;
  const std::uint64_t filled = bytes_all == 0 ? kWidth : bytes * kWidth / bytes_all;
  std::fprintf(stderr, "\r[%s>%s] %zu tasks, %zu refused", std::string(filled, '=').c_str(), std::string(kWidth - filled, ' ').c_str(), accepted, refused);
}

// Tasks of a file, sent in batches.
class Sender {
 public:
  Sender(const TaskOptions& options, std::uint64_t bytes_all) : options_(options), bytes_all_(bytes_all) {}

  bool add(json task, std::size_t line, std::uint64_t bytes) {
    batch_.push_back(std::move(task));
    lines_.push_back(line);
    bytes_ += bytes;
    pending_bytes_ += bytes;
    static constexpr std::size_t kBatchMax = 1000;
    static constexpr std::uint64_t kBatchBytesMax = 8 << 20;
    return batch_.size() < kBatchMax && pending_bytes_ < kBatchBytesMax ? true : send();
  }
  bool send() {
    if (batch_.empty()) return true;
    const json body = {{"tasks", std::exchange(batch_, json::array())}};
    const auto answer = call(options_.admin, "POST", "/v1/tasks:batch", body);
    if (!answer) return false;
    const json& answers = answer->at("tasks");
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (answers[i].value("status", 0) == 202) {
        ++accepted_;
      } else if (refused_++ < kRefusalsShown) {
        std::fprintf(stderr, "%s:%zu: refused (%d): %s\n", options_.file.c_str(), lines_[i], answers[i].value("status", 0),
                     answers[i].value("detail", "").c_str());
      }
    }
    lines_.clear();
    pending_bytes_ = 0;
    print_progress(bytes_, bytes_all_, accepted_, refused_);
    return true;
  }
  int finish() {
    if (::isatty(STDERR_FILENO) == 1) std::fprintf(stderr, "\n");
    std::printf("%zu tasks accepted, %zu refused\n", accepted_, refused_);
    return refused_ == 0 ? 0 : 1;
  }

 private:
  static constexpr std::size_t kRefusalsShown = 20;
  const TaskOptions& options_;
  std::uint64_t bytes_all_;
  std::uint64_t bytes_ = 0;
  std::uint64_t pending_bytes_ = 0;
  json batch_ = json::array();
  std::vector<std::size_t> lines_;
  std::size_t accepted_ = 0;
  std::size_t refused_ = 0;
};

int submit_file(const TaskOptions& options) {
  std::ifstream file;
  if (options.file != "-") {
    file.open(options.file, std::ios::ate);
    if (!file) {
      std::fprintf(stderr, "ringmaster: %s cannot be read\n", options.file.c_str());
      return 1;
    }
  }
  const auto bytes = options.file == "-" ? std::uint64_t{0} : static_cast<std::uint64_t>(file.tellg());
  file.seekg(0);
  std::istream& in = options.file == "-" ? std::cin : file;
  Sender sender(options, bytes);
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    json task = base::parse_json(line);
    if (task.is_discarded() || !task.is_object()) {
      if (!sender.send()) return 1;  // what stood before it
      std::fprintf(stderr, "ringmaster: %s:%zu: this line is not a JSON object; what stands before it has been sent\n", options.file.c_str(), number);
      sender.finish();
      return 1;
    }
    if (!sender.add(std::move(task), number, line.size() + 1)) return 1;
  }
  return sender.send() ? sender.finish() : 1;
}

std::string path_of(const TaskOptions& options) { return "/v1/tasks/" + http::percent_encode(options.id); }

// The task once it has ended, however often one has to ask; nothing after a line to standard error.
std::optional<json> wait_for(const TaskOptions& options, const std::string& id) {
  static constexpr unsigned kWait = 300;
  while (true) {
    auto task = call(options.admin, "GET", "/v1/tasks/" + http::percent_encode(id) + "?wait=" + std::to_string(options.wait_s == 0 ? kWait : options.wait_s),
                     nullptr, kWait + 60);
    if (!task) return std::nullopt;
    const std::string state = text_of(task->at("state"));
    if (options.wait_s != 0 || (state != "scheduled" && state != "pending" && state != "in_progress")) return task;
  }
}

int print_end(const std::optional<json>& task) {
  if (!task) return 1;
  print_whole(*task);
  return task->at("state") == "done" ? 0 : 1;
}

int act(const TaskOptions& options, const std::string& verb) {
  const auto task = call(options.admin, "POST", path_of(options) + ":" + verb, nullptr);
  if (!task) return 1;
  print_line(*task);
  return 0;
}

}  // namespace

int run_task_submit(const TaskOptions& options) {
  if (!options.file.empty()) return submit_file(options);
  json payload = base::parse_json(options.payload.empty() ? "{}" : options.payload);
  if (payload.is_discarded() || options.type.empty()) {
    std::fprintf(stderr, "ringmaster: %s\n", options.type.empty() ? "name the task's type, or a --file" : "the payload is not JSON");
    return 2;
  }
  json task = {{"type", options.type}, {"payload", std::move(payload)}, {"priority", options.priority}};
  if (!options.queue.empty()) task["queue"] = options.queue;
  if (options.delay_ms != 0) task["delay_ms"] = options.delay_ms;
  const auto accepted = call(options.admin, "POST", "/v1/tasks", task);
  if (!accepted) return 1;
  const std::string id = text_of(accepted->at("id"));
  if (options.wait_s != 0) return print_end(wait_for(options, id));
  std::printf("%s  %s  %s\n", id.c_str(), text_of(accepted->at("state")).c_str(), text_of(accepted->at("replica")).c_str());
  return 0;
}

int run_task_get(const TaskOptions& options) {
  const auto task = call(options.admin, "GET", path_of(options), nullptr);
  if (task) print_whole(*task);
  return task ? 0 : 1;
}

int run_task_wait(const TaskOptions& options) { return print_end(wait_for(options, options.id)); }

int run_task_list(const TaskOptions& options) {
  std::string query = "?limit=" + std::to_string(options.limit);
  for (const auto& [name, value] : {std::pair("state", &options.state), {"type", &options.type}, {"queue", &options.queue}}) {
    if (!value->empty()) query += "&" + std::string(name) + "=" + http::percent_encode(*value);
  }
  const auto answer = call(options.admin, "GET", "/v1/tasks" + query, nullptr);
  if (!answer) return 1;
  if (options.json) {
    print_whole(*answer);
    return 0;
  }
  std::printf("%-16s  %-11s  %-12s  %-16s  %s\n", "id", "state", "type", "replica", "result or error");
  for (const json& task : answer->at("tasks")) print_line(task);
  if (!answer->at("next").is_null()) std::printf("(there are more: --limit, or --json and its cursor)\n");
  return 0;
}

int run_task_cancel(const TaskOptions& options) { return act(options, "cancel"); }
int run_task_retry(const TaskOptions& options) { return act(options, "retry"); }

}  // namespace ringmaster::cmd
