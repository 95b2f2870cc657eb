#include "lab/stack.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "base/json.h"
#include "http/target.h"
#include "io/resolve.h"

namespace ringmaster::lab {

using base::Code;
using nlohmann::json;
using namespace std::chrono_literals;

static constexpr Duration kPoll = 5ms;
static constexpr Duration kStartMax = 30s;

static std::string temporary_folder(io::Loop& loop) {
  const char* given = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): nobody writes it
  std::string folder = given == nullptr || *given == '\0' ? "/tmp" : given;
  static constexpr std::size_t kFolderBytesMax = 11;  // sockets' paths are short, and a state directory's path is the most of them
  if (folder.size() > kFolderBytesMax) folder = "/tmp";
  return folder + "/ringmaster-lab-" + std::to_string(loop.random().below(UINT32_MAX));
}

Stack::~Stack() { remove_folder(); }

void Stack::remove_folder() {
  if (folder_.empty()) return;
  io::System& system = loop_.system();
  for (const char* inner : {"/state/run", "/state/tasks", "/state", ""}) {
    system.clear_directory(folder_ + inner);
    system.remove_file(folder_ + inner);
  }
  folder_.clear();
}

Async<Result<std::unique_ptr<Stack>>> Stack::start(io::Loop& loop, Interrupt& interrupt, std::string pool) {
  std::unique_ptr<Stack> stack(new Stack(loop, interrupt));
  stack->folder_ = temporary_folder(loop);
  if (const auto made = loop.system().make_directory(stack->folder_, 0700, false); !made) co_return std::unexpected(made.error());
  stack->configuration_ =
      "[[listener]]\naddress = \"127.0.0.1:0\"\npool = \"web\"\nclassic = true\n\n[admin]\naddress = \"127.0.0.1:0\"\n\n[pool.web]\n" + pool;
  const std::string file = stack->folder_ + "/lab.toml";
  const auto written = loop.system().replace_file(file, "state_dir = \"" + stack->folder_ + "/state\"\n" + stack->configuration_, false);
  if (!written) co_return std::unexpected(written.error());
  const std::vector<std::string> arguments = {"up", "--config", file};
  auto program = Program::start(loop, arguments);
  if (!program) co_return std::unexpected(program.error());
  stack->program_ = std::move(*program);
  auto up = co_await stack->find_addresses();
  if (up) up = co_await stack->until_ready(0);
  if (!up) {
    const std::string words = stack->program_->last_words();
    co_await stack->stop();
    co_return base::fail(up.error().code,
                         "the lab's own Ringmaster did not start: " + base::describe(up.error()) + (words.empty() ? "" : "; it said: " + words));
  }
  co_return stack;
}

Async<Result<std::unique_ptr<Stack>>> Stack::join(io::Loop& loop, Interrupt& interrupt, Target target, const std::string& admin) {
  std::unique_ptr<Stack> stack(new Stack(loop, interrupt));
  stack->target_ = std::move(target);
  if (!admin.empty()) {
    const auto found = co_await io::resolve(loop, admin);
    if (!found) co_return base::fail(found.error().code, "--admin " + admin + ": " + base::describe(found.error()));
    stack->admin_ = std::make_unique<wire::ConnectionPool>(loop, found->front(), 2s);
    stack->admin_host_ = admin;
    // The pool of the listener that the target is; else the first there is.
    const auto status = co_await stack->call("GET", "/v1/status");
    if (!status) co_return base::fail(status.error().code, "the admin API at " + admin + " does not answer: " + base::describe(status.error()));
    try {
      stack->pool_ = status->at("pools").at(0).at("name").get<std::string>();
      for (const json& listener : status->at("listeners")) {
        const auto address = Endpoint::parse(listener.at("address").get<std::string>());
        if (address && address->port == stack->target_.endpoint.port) stack->pool_ = listener.at("pool").get<std::string>();
      }
    } catch (const json::exception& error) {
      co_return base::fail(Code::invalid, "what answers at " + admin + " is not Ringmaster's admin API: " + error.what());
    }
  }
  co_return stack;
}

Target Stack::target(std::string path) const {
  Target target = target_;
  if (ours()) target.path = std::move(path);
  return target;
}

// The ports that the system chose stand in addresses.json once all is listened on.
Async<Result<void>> Stack::find_addresses() {
  const Time deadline = loop_.now() + kStartMax;
  while (true) {
    const auto text = loop_.system().read_file(folder_ + "/state/addresses.json");
    const json addresses = text ? base::parse_json(*text) : json();
    if (addresses.is_object()) {
      const auto admin = Endpoint::parse(addresses.value("admin", ""));
      const auto listener = Endpoint::parse(addresses.at("listeners").at(0).get<std::string>());
      if (!admin || !listener) co_return base::fail(Code::invalid, "its addresses cannot be read");
      admin_ = std::make_unique<wire::ConnectionPool>(loop_, *admin, 2s);
      admin_host_ = base::to_string(*admin);
      target_ = {*listener, base::to_string(*listener), "/home"};
      co_return Result<void>{};
    }
    if (!program_->running()) co_return base::fail(Code::exited, "it ended at once");
    if (loop_.now() > deadline) co_return base::fail(Code::timeout);
    if (interrupt_.asked()) co_return base::fail(Code::cancelled);
    co_await interrupt_.until(loop_, loop_.now() + kPoll);
  }
}

Async<Result<json>> Stack::call(std::string method, std::string path, std::string body) {
  static constexpr std::size_t kAnswerBytesMax = 16 << 20;
  wire::FetchRequest request;
  request.method = std::move(method);
  request.target = std::move(path);
  request.host = admin_host_;
  request.body = std::move(body);
  if (!request.body.empty()) request.headers = "Content-Type: application/json\r\n";
  const auto answer = co_await wire::fetch(*admin_, request, loop_.now() + kStartMax, kAnswerBytesMax);
  if (!answer) co_return std::unexpected(answer.error());
  json value = base::parse_json(answer->body);
  if (answer->status != 200 || !value.is_object()) {
    const std::string detail = value.is_object() ? value.value("detail", "") : "";
    co_return base::fail(Code::invalid,
                         request.method + " " + request.target + ": status " + std::to_string(answer->status) + (detail.empty() ? "" : ", " + detail));
  }
  co_return value;
}

Async<Result<std::vector<ReplicaSeen>>> Stack::replicas() {
  const std::string path = "/v1/pools/" + pool_;
  const auto pool = co_await call("GET", path);
  if (!pool) co_return std::unexpected(pool.error());
  try {
    std::vector<ReplicaSeen> seen;
    for (const json& replica : pool->at("replicas")) {
      seen.push_back({replica.at("name").get<std::string>(), replica.at("slot").get<unsigned>(), replica.at("pid").get<std::int64_t>(),
                      replica.at("requests").get<std::uint64_t>(), replica.at("state").get<std::string>() == "ready"});
    }
    co_return seen;
  } catch (const json::exception& error) {
    co_return base::fail(Code::invalid, std::string("this is not Ringmaster's admin API: ") + error.what());
  }
}

// The last field of a process's /proc/PID/stat that we want: its parent. Fields are counted after the name, which may have spaces.
static std::string parent_of(io::System& system, std::int64_t pid) {
  const auto stat = system.read_file("/proc/" + std::to_string(pid) + "/stat");
  if (!stat) return {};
  const std::size_t name_end = stat->rfind(") ");
  if (name_end == std::string::npos || name_end + 4 >= stat->size()) return {};
  const std::size_t begin = name_end + 4;  // after the state
  return stat->substr(begin, stat->find(' ', begin) - begin);
}

Async<Result<Time>> Stack::kill(ReplicaSeen replica) {
  static constexpr const char* kNotHere = "is no process that this machine's Ringmaster has started: it cannot be killed from here";
  io::System& system = loop_.system();
  const auto status = co_await call("GET", "/v1/status");
  if (!status) co_return std::unexpected(status.error());
  std::int64_t engine = 0;
  if (status->contains("engine") && status->at("engine").is_object() && status->at("engine").contains("pid") &&
      status->at("engine").at("pid").is_number_integer()) {
    engine = status->at("engine").at("pid").get<std::int64_t>();
  }
  // The number may be another machine's, or a container's. It is ours if the engine is here, too, and the master is the
  // parent of both.
  const auto command = engine > 1 ? system.read_file("/proc/" + std::to_string(engine) + "/cmdline") : base::fail(Code::not_found);
  const std::string master = parent_of(system, engine);
  const bool ours = replica.pid > 1 && replica.pid <= INT32_MAX && command && command->find(std::string("\0engine", 7)) != std::string::npos &&
                    !master.empty() && parent_of(system, replica.pid) == master;
  if (!ours) co_return base::fail(Code::denied, "the server " + replica.name + " (process " + std::to_string(replica.pid) + ") " + kNotHere);
  const Time at = system.now();
  system.signal(io::Child{.pid = static_cast<pid_t>(replica.pid)}, SIGKILL);
  co_return at;
}

// Waits until is_so(replicas).
template <class F>
Async<Result<void>> Stack::until(F is_so) {
  const Time deadline = loop_.now() + kStartMax;
  while (true) {
    const auto seen = co_await replicas();
    if (seen && is_so(*seen)) co_return Result<void>{};
    if (interrupt_.asked()) co_return base::fail(Code::cancelled);
    if (program_ && !program_->running()) co_return base::fail(Code::exited, "it has ended");
    if (loop_.now() > deadline) co_return base::fail(Code::timeout, "its servers did not become ready");
    co_await interrupt_.until(loop_, loop_.now() + kPoll);
  }
}

Async<Result<void>> Stack::until_ready(unsigned n) {
  return until([n](const std::vector<ReplicaSeen>& seen) {
    const auto ready = std::ranges::count_if(seen, &ReplicaSeen::ready);
    return ready == std::ssize(seen) && (n == 0 || ready == n);
  });
}

Async<Result<void>> Stack::until_replaced(ReplicaSeen replica) {
  return until([replica = std::move(replica)](const std::vector<ReplicaSeen>& seen) {
    return std::ranges::any_of(seen, [&](const ReplicaSeen& now) { return now.slot == replica.slot && now.ready && now.pid != 0 && now.pid != replica.pid; });
  });
}

Async<Result<void>> Stack::change(std::string method, json body) {
  const std::string path = "/v1/pools/" + pool_ + "/replicas";
  const std::string text = base::json_text(body);
  const auto changed = co_await call(method, path, text);
  if (!changed) co_return std::unexpected(changed.error());
  co_return Result<void>{};
}

Async<Result<void>> Stack::resize(unsigned n) {
  const auto seen = co_await replicas();
  if (!seen) co_return std::unexpected(seen.error());
  const auto now = static_cast<unsigned>(seen->size());
  if (n == now) co_return Result<void>{};
  const json body = {{"n", n > now ? n - now : now - n}};
  const std::string method = n > now ? "POST" : "DELETE";
  const auto changed = co_await change(method, body);
  if (!changed) co_return changed;
  co_return co_await until_ready(n);
}

Async<Result<void>> Stack::remove(std::string name) {
  const json body = {{"n", 1}, {"names", {name}}};
  co_return co_await change("DELETE", body);
}

Async<void> Stack::stop() {
  if (admin_) admin_->close_idle();
  if (!program_) co_return;
  co_await program_->stop();
  program_.reset();
  remove_folder();
}

}  // namespace ringmaster::lab
