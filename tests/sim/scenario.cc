#include "scenario.h"

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "programs.h"

namespace ringmaster::sim {

// After a kill or a broken connection a slot may be away for a moment: until its successor is ready, or a check has
// cleared it.
static constexpr Duration kRecovery = 1500ms;

bool Ledger::calm(unsigned slot, Time from, Time to) const {
  const auto found = troubles.find(slot);
  if (found == troubles.end()) return true;
  return std::ranges::none_of(found->second, [&](Time t) { return t >= from - kRecovery && t <= to; });
}

ServerProgram::ServerProgram(io::SimProcess& process, Ledger& ledger)
    : loop_(process.loop()), ledger_(ledger), slot_(static_cast<unsigned>(std::stoul(process.request.argv[2]))), server_(loop_, *this, {}) {
  ledger_.trouble(slot_, loop_.now());
  auto listening = process.systems[0]->listen(*base::Endpoint::parse("unix:" + process.request.argv[1]), {});
  if (listening) server_.listen(std::move(*listening));
}

void ServerProgram::kill() {
  ledger_.trouble(slot_, loop_.now());
  loop_.root().spawn(end());
}

Async<void> ServerProgram::end() {
  co_await server_.stop(loop_.now());
  ended_ = true;
}

Async<void> ServerProgram::handle(wire::Exchange& exchange) {
  if (exchange.path() == "/heartbeat") {
    co_await exchange.reply(200, "", "");
    co_return;
  }
  const http::Field* field = exchange.request().fields.find("X-Id");
  const std::string id(field == nullptr ? "" : field->value);
  const auto body = co_await exchange.read_whole_body(1 << 20);
  if (!body) co_return;
  ++ledger_.executed[id];
  const Duration work = std::chrono::microseconds(100 + loop_.random().below(5000));
  const base::Code slept = co_await loop_.sleep(work);
  if (slept == base::Code::cancelled) co_return;
  const std::string answer = id + " " + std::to_string(slot_) + " " + std::to_string(body->size()) + std::string(loop_.random().below(3000), '.');
  co_await exchange.reply(200, "text/plain", answer);
}

namespace {

constexpr const char* kConfig = R"(
state_dir = "/s"
workers = 2
[[listener]]
address = "127.0.0.1:5000"
pool = "web"
classic = true
[pool.web]
command = ["server", "{socket}", "{slot}"]
replicas = 3
key = "header:X-Key"
bounded_load = 0   # a key is judged by its own slot
[pool.web.health]
path = "/heartbeat"
)";

class IdleProgram final : public io::SimProgram {
 public:
  explicit IdleProgram(io::SimProcess& process) : process_(process) {}
  void kill() override { process_.loop().root().cancel(); }
  bool ended() const override { return process_.ghost && process_.loop().root().empty(); }

 private:
  io::SimProcess& process_;
};

class Scenario {
 public:
  Scenario(std::uint64_t seed, const Options& options) : options_(options), world_(seed, options.faults) {
    config_ = std::get<config::Config>(config::parse("sim.toml", kConfig));
    world_.install("ringmaster", [](io::SimProcess& p) { return std::make_unique<EngineProgram>(p); });
    world_.install("server", [this](io::SimProcess& p) { return std::make_unique<ServerProgram>(p, ledger_); });
    world_.install("client", [](io::SimProcess& p) { return std::make_unique<IdleProgram>(p); });
    world_.install("master", [this](io::SimProcess& p) {
      auto program = std::make_unique<MasterProgram>(p, config_);
      if (!program->failure().empty()) broken_.push_back("the master did not start: " + program->failure());
      return program;
    });
    world_.on_fault = [this](const std::string& to) {
      // "unix:/s/run/web.2.5.sock": slot 2.
      const std::size_t at = to.find("web.");
      if (at != std::string::npos) ledger_.trouble(static_cast<unsigned>(std::stoul(to.substr(at + 4))), world_.now());
    };
  }

  Result run() {
    boot();
    expect(world_.run([this] { return all_ready(); }, world_.now() + 5s), "the fleet did not become ready");
    begin_clients();
    const Time end = world_.now() + options_.length;
    while (world_.now() < end) {
      world_.run([] { return false; }, std::min(end, world_.now() + 20ms));
      make_chaos(20ms);
      check_set();
    }
    recover();
    finish();
    judge();
    Result result{std::move(broken_), world_.trace_hash(), 0, 0, deaths_, changes_, keyed_};
    for (const Seen& seen : seen_) {
      ++result.requests;
      result.answered += seen.status == 200U ? 1 : 0;
    }
    return result;
  }

 private:
  void expect(bool holds, const std::string& what) {
    if (!holds) broken_.push_back(what);
  }

  void boot() {
    io::SpawnRequest request;
    request.argv = {"master"};
    master_pid_ = (*world_.spawn(nullptr, request))->pid;
    booted_ = world_.now();
  }

  io::SimProcess* master_process() { return world_.find(master_pid_); }
  cmd::Master* master() {
    io::SimProcess* process = master_process();
    return process == nullptr || process->ghost || !process->program ? nullptr : &static_cast<MasterProgram&>(*process->program).master();
  }

  // As the master would tell it.
  std::vector<link::ReplicaState> replicas() { return master() == nullptr ? std::vector<link::ReplicaState>{} : master()->fleet().snapshot().replicas; }

  bool all_ready() {
    const auto all = replicas();
    return all.size() >= 3 && std::ranges::all_of(all, [](const auto& r) { return r.state == link::State::running && r.healthy; });
  }

  // N is kept: always three slots, with three different names.
  void check_set() {
    const auto all = replicas();
    if (master() == nullptr || all.empty()) return;
    std::set<unsigned> slots;
    std::set<std::string> names;
    std::size_t seats = 0;
    for (const auto& r : all) {
      if (r.state == link::State::draining) continue;  // beside the set
      ++seats;
      slots.insert(r.slot);
      names.insert(r.name);
    }
    std::erase_if(slots, [](unsigned slot) { return slot > 3; });  // what /add makes
    expect(slots == std::set<unsigned>({1, 2, 3}) && names.size() == seats, "N was not kept");
  }

  void make_chaos(Duration interval) {
    const auto happens = [&](double per_s) { return world_.random().unit() < per_s * std::chrono::duration<double>(interval).count(); };
    if (master() == nullptr) {
      if (world_.now() - killed_at_ > 50ms && master_process() == nullptr) boot();
      return;
    }
    const auto all = replicas();
    if (happens(options_.replica_kills_per_s) && !all.empty()) kill(static_cast<pid_t>(all[world_.random().below(static_cast<std::uint32_t>(all.size()))].pid));
    if (happens(options_.engine_kills_per_s)) kill(engine_pid());
    if (happens(options_.master_kills_per_s) && world_.now() - booted_ > 500ms) {
      killed_at_ = world_.now();
      all_troubled();
      kill(master_pid_);
    }
  }

  void all_troubled() {
    for (unsigned slot = 1; slot <= 3; ++slot) ledger_.trouble(slot, world_.now());
  }

  pid_t engine_pid() {
    for (pid_t pid = 100; pid < 100000; ++pid) {
      io::SimProcess* process = world_.find(pid);
      if (process != nullptr && !process->ghost && process->request.argv[0] == "ringmaster") return pid;
      if (pid > 2000) break;
    }
    return 0;
  }

  void kill(pid_t pid) {
    io::SimProcess* process = world_.find(pid);
    if (process == nullptr || process->ghost) return;
    ++deaths_;
    if (process->request.argv[0] == "server") ledger_.trouble(static_cast<unsigned>(std::stoul(process->request.argv[2])), world_.now());
    world_.signal(*process, SIGKILL);
  }

  // The chaos is over: everything must come back and serve.
  void recover() {
    world_.set_faults({});
    world_.run([this] { return master() != nullptr || master_process() == nullptr; }, world_.now() + 1s);
    if (master() == nullptr) {
      world_.run([this] { return master_process() == nullptr; }, world_.now() + 10s);
      boot();
    }
    expect(world_.run([this] { return all_ready(); }, world_.now() + 40s), "the fleet did not recover");
    recovered_ = world_.now() + kRecovery;
    world_.run([] { return false; }, world_.now() + kRecovery + 500ms);
  }

  void finish() {
    stop_clients_ = true;
    expect(world_.run([this] { return clients_ == 0; }, world_.now() + 100s), "a client waits for ever");
    if (io::SimProcess* process = world_.find(client_pid_)) world_.kill(*process, {});
    if (cmd::Master* m = master()) m->stop();
    expect(world_.run([this] { return master_process() == nullptr; }, world_.now() + 60s), "the master did not stop");
  }

  // --- clients ---

  void begin_clients() {
    io::SpawnRequest request;
    request.argv = {"client"};
    client_pid_ = (*world_.spawn(nullptr, request))->pid;
    world_.run([this] { return world_.find(client_pid_)->program != nullptr; }, world_.now() + 1s);
    io::Loop& loop = world_.find(client_pid_)->loop();
    for (unsigned i = 0; i < options_.clients; ++i) {
      ++clients_;
      loop.root().spawn(client(loop, i));
    }
    ++clients_;
    loop.root().spawn(changer(loop));
  }

  Async<void> client(io::Loop& loop, unsigned number) {
    for (unsigned n = 0; !stop_clients_;) {
      auto stream = co_await io::connect(loop, base::Endpoint::loopback(5000), loop.now() + 1s);
      if (!stream) {
        co_await loop.sleep(5ms);
        continue;
      }
      const unsigned uses = 1 + loop.random().below(20);
      for (unsigned use = 0; use < uses && !stop_clients_; ++use) {
        Seen seen;
        seen.id = std::to_string(number) + "-" + std::to_string(n++);
        seen.key = "key" + std::to_string(loop.random().below(40));
        seen.post = loop.random().below(3) == 0;
        seen.begun = loop.now();
        co_await ask(loop, *stream, seen);
        seen.ended = loop.now();
        seen_.push_back(seen);
        if (!seen.status) break;
        co_await loop.sleep(std::chrono::microseconds(loop.random().below(20000)));
      }
    }
    --clients_;
  }

  // Adds a fourth server and takes it out again, as long as the chaos lasts; at the end none is left.
  Async<void> changer(io::Loop& loop) {
    while (!stop_clients_) {
      co_await change(loop, "POST", "/add", "Extra");
      co_await loop.sleep(std::chrono::milliseconds(50 + loop.random().below(300)));
      co_await remove_extra(loop);
      co_await loop.sleep(std::chrono::milliseconds(20 + loop.random().below(100)));
    }
    co_await remove_extra(loop);
    --clients_;
  }

  // By its name of the moment: a death gives it another.
  Async<void> remove_extra(io::Loop& loop) {
    wire::FetchRequest request;
    request.target = "/rep";
    const auto response = co_await wire::fetch(loop, base::Endpoint::loopback(5000), request, loop.now() + 30s, 1 << 16);
    if (!response || response->status != 200) co_return;
    const auto list = nlohmann::json::parse(response->body);
    const auto names = list["message"]["replicas"].get<std::vector<std::string>>();
    for (std::size_t i = 3; i < names.size(); ++i) co_await change(loop, "DELETE", "/rm", names[i]);
  }

  Async<void> change(io::Loop& loop, std::string method, std::string path, std::string name) {
    wire::FetchRequest request;
    request.method = method;
    request.target = path;
    request.body = R"({"n":1,"hostnames":[")" + name + R"("]})";
    const auto response = co_await wire::fetch(loop, base::Endpoint::loopback(5000), request, loop.now() + 30s, 1 << 16);
    if (response && response->status == 200) ++changes_;
    const bool answered_by_us = !response || response->status == 200 || response->status == 400 || response->status == 500 || response->status == 503;
    if (!answered_by_us) broken_.push_back(method + " " + path + " got " + std::to_string(response->status));
  }

  Async<void> ask(io::Loop& loop, io::Stream& stream, Seen& seen) {
    const std::size_t body_bytes = seen.post ? loop.random().below(40000) : 0;
    std::string request = std::string(seen.post ? "POST" : "GET") + " /work HTTP/1.1\r\nHost: h\r\nX-Id: " + seen.id + "\r\nX-Key: " + seen.key + "\r\n";
    if (seen.post) request += "Content-Length: " + std::to_string(body_bytes) + "\r\n";
    request += "\r\n" + std::string(body_bytes, 'b');
    const std::string_view piece = request;
    auto write = stream.write(std::span(&piece, 1), loop.now() + 20s);
    const auto sent = co_await write;
    wire::ResponseReader reader;
    reader.begin(stream, http::Method::get);
    const auto head = co_await reader.read_head(loop.now() + 90s);
    if (!head) {
      if (head.error().code == base::Code::timeout) seen.fault = "no answer in 90 s";
      if (head.error().code == base::Code::invalid) seen.fault = "a malformed answer: " + head.error().detail;
      co_return;
    }
    const unsigned status = reader.head().status;
    std::string body;
    while (!reader.complete()) {
      const auto more = co_await reader.read_body(20s);
      if (!more) co_return;  // broken off: refused, not answered
      body += *more;
    }
    if (!sent && status == 200) seen.fault = "answered a request that was not whole";
    seen.status = status;
    if (status != 200) co_return;
    if (!body.starts_with(seen.id + " ")) seen.fault = "the answer to " + seen.id + " is another's: " + body.substr(0, 40);
    seen.slot = static_cast<unsigned>(std::stoul(body.substr(body.find(' ') + 1)));
    if (!reader.reusable()) seen.fault = "bytes after the answer";
  }

  // --- what must have held ---

  void judge() {
    for (const Seen& seen : seen_) {
      const std::string who = (seen.post ? "POST " : "GET ") + seen.id;
      if (!seen.fault.empty()) broken_.push_back(who + ": " + seen.fault);
      const unsigned executed = ledger_.executed.contains(seen.id) ? ledger_.executed.at(seen.id) : 0;
      if (seen.post && executed > 1) broken_.push_back(who + " was executed twice");
      if (seen.status == 200U && executed == 0) broken_.push_back(who + " was answered and never executed");
      if (seen.status && *seen.status != 200 && *seen.status != 502 && *seen.status != 503 && *seen.status != 504) {
        broken_.push_back(who + " got " + std::to_string(*seen.status));
      }
      if (seen.begun >= recovered_ && seen.status != 200U) broken_.push_back(who + " failed after all had recovered");
      if (seen.status == 200U && seen.slot <= 3) judge_key(seen);
    }
  }

  // A key belongs to one of the three slots; another may only have answered if that one was in trouble, or if the key is
  // the fourth server's while there is one (then it moves there, and nowhere else).
  void judge_key(const Seen& seen) {
    const unsigned home = home_of(seen.key);
    if (!ledger_.calm(home, seen.begun, seen.ended)) return;
    ++keyed_;
    expect(seen.slot == home, "the key " + seen.key + " of slot " + std::to_string(home) + " was answered by slot " + std::to_string(seen.slot));
  }

  static unsigned home_of(const std::string& key) {
    balance::PoolView pool;
    pool.policy = balance::Policy::rendezvous;
    for (unsigned slot = 1; slot <= 3; ++slot) {
      pool.replicas.push_back(std::make_shared<balance::Replica>());
      pool.replicas.back()->slot = slot;
      pool.replicas.back()->status = pool.status;
      pool.replicas.back()->set_seated(true);
      pool.replicas.back()->set_phase(balance::Phase::ready);
    }
    balance::PickState state(1);
    CHECK(balance::prepare(pool, {}, nullptr).has_value());
    return balance::pick(pool, balance::hash_of(key), {}, state)->slot;
  }

  Options options_;
  config::Config config_;
  Ledger ledger_;
  std::vector<Seen> seen_;
  std::vector<std::string> broken_;
  io::SimWorld world_;
  pid_t master_pid_ = 0;
  pid_t client_pid_ = 0;
  Time booted_{};
  Time killed_at_{};
  Time recovered_ = base::kNever;
  unsigned clients_ = 0;
  unsigned deaths_ = 0;
  unsigned changes_ = 0;
  unsigned keyed_ = 0;
  bool stop_clients_ = false;
};

}  // namespace

Result run(std::uint64_t seed, const Options& options) {
  base::log::set_level(base::log::Level::off);
  return Scenario(seed, options).run();
}

}  // namespace ringmaster::sim
