#include "base/names.h"
#include "config/parts.h"

namespace ringmaster::config {

using base::Code;
using base::Result;
using namespace std::chrono_literals;

static void read_policy(Reader& reader, Queue& queue) {
  reader.parsed("policy", [&](const std::string& text) -> Result<void> {
    using balance::Policy;
    for (const Policy policy : {Policy::first_available, Policy::least_requests, Policy::round_robin}) {
      if (text != balance::name(policy)) continue;
      queue.policy = policy;
      return {};
    }
    return base::fail(Code::invalid, "'" + text + "' is no policy for tasks; there are first_available, least_requests, round_robin");
  });
}

static void read_types(Reader& reader, Queue& queue) {
  reader.texts("types", queue.types);
  for (const std::string& type : queue.types) {
    if (!base::is_pool_name(type)) reader.faults().add(reader.source(), "'" + type + "' is no type: letters, digits, '_' and '-', at most 32");
  }
}

Queue read_queue(std::string name, const toml::table& table, const Config& config, Faults& faults) {
  Queue queue;
  queue.name = std::move(name);
  Reader reader(table, "[queue." + queue.name + "]", faults);
  if (!base::is_pool_name(queue.name)) faults.add(table.source(), "'" + queue.name + "' is no queue name: letters, digits, '_' and '-', at most 32");
  reader.text("pool", queue.pool);
  if (!queue.pool.empty() && config.find_pool(queue.pool) == nullptr) faults.add(table.get("pool")->source(), "there is no pool '" + queue.pool + "'");
  if (const Pool* pool = config.find_pool(queue.pool); pool != nullptr && pool->proxy_protocol != ProxyProtocol::none) {
    faults.add(table.get("pool")->source(), "tasks are offered without a PROXY header, which the servers of pool '" + queue.pool + "' expect");
  }
  reader.parsed("path", [&](const std::string& text) { return read_path(text, queue.path); });
  reader.parsed("ask", [&](const std::string& text) { return text.empty() ? Result<void>{} : read_path(text, queue.ask); });
  read_policy(reader, queue);
  read_types(reader, queue);
  reader.parsed("admission", [&](const std::string& text) -> Result<void> {
    queue.now = text == "now";
    return text == "now" || text == "queue" ? Result<void>{} : base::fail(Code::invalid, "it is now or queue");
  });
  if (queue.now && queue.pool.empty()) faults.add(table.source(), "admission \"now\" needs a pool: nobody knows when a pull worker comes");
  reader.count("length_max", queue.length_max, 1, 100'000'000);
  reader.count("in_progress_max", queue.in_progress_max, 0, 1'000'000);
  reader.count("failures_max", queue.failures_max, 1, 1'000'000);
  reader.duration("back_off", queue.back_off, 1ms);
  reader.duration("back_off_max", queue.back_off_max, 1ms);
  reader.duration("timeout", queue.timeout, 1ms);
  reader.finish();
  return queue;
}

void read_tasks(const toml::table& table, Tasks& tasks, Faults& faults) {
  Reader reader(table, "[tasks]", faults);
  reader.bytes("payload_bytes_max", tasks.payload_bytes_max);
  reader.bytes("result_bytes_max", tasks.result_bytes_max);
  static constexpr std::uint64_t kBytesMax = 64 << 20;
  if (tasks.payload_bytes_max > kBytesMax || tasks.result_bytes_max > kBytesMax) {
    faults.add(table.source(), "payload_bytes_max and result_bytes_max are at most 64MiB: larger things belong in a file, and its name in the task");
  }
  reader.bytes("waiting_bytes_max", tasks.waiting_bytes_max);
  reader.duration("keep", tasks.keep, 1s);
  reader.count("keep_max", tasks.keep_max, 0, 1'000'000'000);
  reader.flag("log", tasks.log);
  reader.texts("callbacks", tasks.callbacks);
  for (const std::string& url : tasks.callbacks) {
    const std::string_view rest = std::string_view(url).substr(std::min<std::size_t>(url.size(), 7));
    if (!url.starts_with("http://") || rest.find('/') == std::string_view::npos || rest.starts_with('/') || rest.contains('@')) {
      faults.add(table.get("callbacks")->source(), "'" + url + "' is not of the form http://host:port/path");
    }
  }
  reader.text("callback_secret", tasks.callback_secret);
  reader.count("callback_tries", tasks.callback_tries, 1, 1000);
  reader.duration("callback_back_off", tasks.callback_back_off, 10ms);
  reader.duration("callback_back_off_max", tasks.callback_back_off_max, 10ms);
  if (!tasks.callbacks.empty() && tasks.callback_secret.size() < 16) {
    faults.add(table.source(), "callbacks are signed: callback_secret needs 16 characters or more");
  }
  reader.finish();
}

}  // namespace ringmaster::config
