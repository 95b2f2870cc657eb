#include "scenario.h"

#include <xxhash.h>
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "disk.h"
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

bool Options::network_breaks() const { return faults.reset + faults.half_close + faults.connect_refused + faults.connect_slow + faults.connect_silent > 0; }

bool Options::only_replicas_die() const {
  return !network_breaks() && engine_kills + master_kills + power_losses + replica_stops + engine_stops + slow_replicas + full_tables + failed_spawns == 0;
}

namespace {

constexpr const char* kConfig = R"(
state_dir = "/s"
workers = 2
engine_timeout = "400ms"
[[listener]]
address = "127.0.0.1:5000"
pool = "web"
classic = true
[pool.web]
command = ["server", "{socket}", "{slot}"]
replicas = 3
key = "header:X-Key"
ready_timeout = "250ms"
bounded_load = 0   # a key is judged by its own slot
[pool.web.health]
path = "/heartbeat"
interval = "200ms"
timeout = "200ms"
fall = 2
rise = 1
kill_after = "1s"
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
  Scenario(std::uint64_t seed, const Options& options)
      : options_(options), chaos_(seed ^ 0x5eed), world_(seed, options.faults), disk_(world_, seed), tasks_(world_, broken_, counts_) {
    world_.label = "seed " + std::to_string(seed);
    std::string text = kConfig;
    if (options.access_log) text += "[access_log]\nformat = \"common\"\npath = \"/s/access.log\"\n";
    config_ = std::get<config::Config>(config::parse("sim.toml", text + TaskSide::config()));
    world_.install("ringmaster", [](io::SimProcess& p) { return std::make_unique<EngineProgram>(p); });
    world_.install("server", [this](io::SimProcess& p) { return std::make_unique<ServerProgram>(p, ledger_, tasks_); });
    world_.install("client", [](io::SimProcess& p) { return std::make_unique<IdleProgram>(p); });
    world_.install("receiver", [this](io::SimProcess& p) { return std::make_unique<ReceiverProgram>(p, tasks_); });
    world_.install("master", [this](io::SimProcess& p) {
      auto program = std::make_unique<MasterProgram>(p, config_);
      // It may have no descriptors, say; then it is started again.
      if (!program->failure().empty() && sound()) broken_.push_back("the master did not start: " + program->failure());
      return program;
    });
    world_.on_fault = [this](const std::string& to) {
      ++counts_["connections broken"];
      // "unix:/s/run/web.2.5.sock": slot 2.
      const std::size_t at = to.find("web.");
      if (at != std::string::npos) ledger_.trouble(static_cast<unsigned>(std::stoul(to.substr(at + 4))), world_.now());
    };
    world_.on_end = [this](io::SimProcess& process) {
      const std::string& program = process.request.argv[0];
      if (program == "server") {
        ++counts_["deaths of servers"];
        if (process.request.argv.size() == 3) ledger_.trouble(static_cast<unsigned>(std::stoul(process.request.argv[2])), world_.now());
      } else if (program == "ringmaster" || program == "master") {
        ++counts_["deaths of " + std::string(program == "master" ? "masters" : "engines")];
        outages_.push_back(world_.now());
      }
    };
    // In the midst of a transaction.
    disk_.on_write = [this] {
      if (power_lost_at_write_ == 0) return;
      --power_lost_at_write_;
      if (power_lost_at_write_ == 0) cut_power();
    };
    tasks_.database_may_fail = options.database_faults + options.full_tables + options.power_losses + options.engine_kills > 0;
    plan_chaos();
  }

  Scenario(const Scenario&) = delete;
  Scenario& operator=(const Scenario&) = delete;
  ~Scenario() { world_.end(); }  // processes use the disk and the books to their very end

  Result run() {
    boot();
    expect(world_.run([this] { return all_ready(); }, world_.now() + 5s), "the fleet did not become ready");
    begin_clients();
    const Time end = world_.now() + options_.length;
    world_.on_step = [this] { step(); };
    while (world_.now() < end) {
      world_.run([] { return false; }, std::min(end, world_.now() + 20ms));
      boot_again();
      check_set();
    }
    world_.on_step = nullptr;
    recover();
    finish();
    judge();
    for (const Seen& seen : seen_) {
      ++counts_["requests"];
      if (seen.status == 200U) ++counts_["requests answered"];
    }
    counts_["link messages refused"] += world_.messages_refused;
    counts_["connects spoilt"] += world_.connects_spoilt;
    counts_["database faults"] += disk_.failures();
    return {std::move(broken_), world_.trace_hash(), std::move(counts_)};
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

  // What a service manager does.
  void boot_again() {
    if (master_process() == nullptr && world_.now() - booted_ > 20ms) boot();
  }

  // Whether nothing that hinders a start is in force.
  bool sound() const { return world_.now() >= std::max(world_.disk_full_until, world_.no_processes_until); }

  io::SimProcess* master_process() { return world_.find(master_pid_); }
  cmd::Master* master() {
    io::SimProcess* process = master_process();
    if (process == nullptr || process->ghost || !process->program) return nullptr;
    auto& program = static_cast<MasterProgram&>(*process->program);
    return program.failure().empty() ? &program.master() : nullptr;
  }

  // As the master would tell it.
  std::vector<link::ReplicaState> replicas() { return master() == nullptr ? std::vector<link::ReplicaState>{} : master()->fleet().snapshot().replicas; }

  bool all_ready() {
    const auto all = replicas();
    return all.size() >= 5 && std::ranges::all_of(all, [](const auto& r) { return r.state == link::State::running && r.healthy; });
  }

  // N is kept: always three slots in one pool and two in the other, with different names.
  void check_set() {
    const auto all = replicas();
    if (master() == nullptr || all.empty()) return;
    for (const auto& [pool, size] : {std::pair("web", 3U), std::pair("work", 2U)}) {
      std::set<unsigned> slots;
      std::set<std::string> names;
      std::size_t seats = 0;
      for (const auto& r : all) {
        if (r.pool != pool || r.state == link::State::draining) continue;  // beside the set
        ++seats;
        slots.insert(r.slot);
        names.insert(r.name);
      }
      std::erase_if(slots, [&](unsigned slot) { return slot > size; });  // what /add makes
      expect(slots.size() == size && names.size() == seats, "N was not kept in pool " + std::string(pool));
    }
  }

  // --- chaos ---

  struct Chaos {
    const char* name;
    double per_s;
    std::function<bool()> act;  // false: there was nothing to do it to
    Time next{};
  };

  void plan_chaos() {
    plan_ = {
        {"kills of servers", options_.replica_kills, [this] { return kill(some("server")); }},
        {"kills of the engine", options_.engine_kills, [this] { return kill(some("ringmaster")); }},
        {"kills of the master", options_.master_kills, [this] { return world_.now() - booted_ > 500ms && kill(master_process()); }},
        {"power losses", options_.power_losses, [this] { return lose_power(); }},
        {"stops of servers", options_.replica_stops, [this] { return stop(some("server"), 800); }},
        {"stops of the engine", options_.engine_stops, [this] { return stop(some("ringmaster"), 1200); }},
        {"slow servers", options_.slow_replicas, [this] { return slow_down(some("server")); }},
        {"clock steps", options_.clock_steps, [this] { return step_clock(); }},
        {"failed spawns", options_.failed_spawns, [this] { return world_.no_processes_until = world_.now() + some_time(300), all_troubled(), true; }},
        {"full descriptor tables", options_.full_tables, [this] { return fill_table(); }},
        {"full disks", options_.full_disks, [this] { return world_.disk_full_until = world_.now() + some_time(300), true; }},
        {"spells of database faults", options_.database_faults, [this] { return spoil_database(); }},
    };
    for (Chaos& one : plan_) one.next = next_time(one.per_s, {});
  }

  Time next_time(double per_s, Time from) {
    if (per_s <= 0) return base::kNever;
    return from + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(-std::log(1 - chaos_.unit()) / per_s));
  }
  Duration some_time(unsigned most_ms) { return std::chrono::milliseconds(1 + chaos_.below(most_ms)); }

  // Between any two turns: what is due happens some turns later, and so in the midst of whatever goes on.
  void step() {
    for (Chaos& one : plan_) {
      if (one.next > world_.now() || chaos_.below(10) != 0) continue;
      one.next = next_time(one.per_s, world_.now());
      if (one.act()) ++counts_[one.name];
    }
  }

  io::SimProcess* some(const std::string& program) {
    std::vector<io::SimProcess*> all;
    world_.for_each([&](io::SimProcess& process) {
      if (!process.ghost && process.request.argv[0] == program) all.push_back(&process);
    });
    return all.empty() ? nullptr : all[chaos_.below(static_cast<std::uint32_t>(all.size()))];
  }

  void trouble(const io::SimProcess& process) {
    if (process.request.argv[0] != "server") return all_troubled();
    if (process.request.argv.size() == 3) ledger_.trouble(static_cast<unsigned>(std::stoul(process.request.argv[2])), world_.now());
  }
  void all_troubled() {
    for (unsigned slot = 1; slot <= 3; ++slot) ledger_.trouble(slot, world_.now());
  }

  // Now, or in the midst of its work: at one of its next system calls.
  bool kill(io::SimProcess* process) {
    if (process == nullptr || process->ghost || process->stopped) return false;
    if (chaos_.below(2) == 0) {
      process->dies_at_call = 1 + chaos_.below(20);
    } else {
      world_.signal(*process, SIGKILL);
    }
    return true;
  }

  bool lose_power() {
    io::SimProcess* process = master_process();
    if (process == nullptr || process->ghost) return false;
    if (chaos_.below(2) == 0) {
      power_lost_at_write_ = 1 + chaos_.below(12);
    } else {
      cut_power();
    }
    return true;
  }

  void cut_power() {
    power_lost_at_write_ = 0;
    io::SimProcess* process = master_process();
    if (process == nullptr || process->ghost) return;
    all_troubled();
    world_.lose_power(*process);
    disk_.lose_power();
    ++counts_["machines without power"];
  }

  bool stop(io::SimProcess* process, unsigned most_ms) {
    if (process == nullptr || process->ghost || process->stopped) return false;
    trouble(*process);
    world_.signal(*process, SIGSTOP);
    if (process->request.argv[0] == "ringmaster") outages_.push_back(world_.now());
    world_.at(world_.now() + some_time(most_ms), [this, pid = process->pid] {
      io::SimProcess* stopped = world_.find(pid);
      if (stopped == nullptr || !stopped->stopped) return;
      trouble(*stopped);
      world_.signal(*stopped, SIGCONT);
    });
    return true;
  }

  bool slow_down(io::SimProcess* process) {
    if (process == nullptr || process->ghost || !process->program) return false;
    static_cast<ServerProgram&>(*process->program).slow_down();
    return true;
  }

  bool step_clock() {
    static constexpr int kHours = 3;
    world_.wall_offset = std::chrono::minutes(static_cast<int>(chaos_.below(2 * kHours * 60)) - kHours * 60);
    clock_stepped_ = true;
    return true;
  }

  bool fill_table() {
    io::SimProcess* process = some(chaos_.below(3) == 0 ? "master" : "ringmaster");
    if (process == nullptr) return false;
    all_troubled();
    process->no_descriptors_until = world_.now() + some_time(300);
    outages_.push_back(world_.now());
    world_.at(process->no_descriptors_until, [this] { all_troubled(); });
    return true;
  }

  bool spoil_database() {
    disk_.fail(30);
    world_.at(world_.now() + some_time(200), [this] { disk_.fail(0); });
    return true;
  }

  // The chaos is over: everything must come back and serve.
  void recover() {
    world_.set_faults({});
    world_.disk_full_until = world_.no_processes_until = {};
    disk_.fail(0);
    power_lost_at_write_ = 0;
    world_.for_each([](io::SimProcess& process) {
      process.dies_at_call = 0;
      process.no_descriptors_until = {};
    });
    // What was put off by a clock that was wrong is due by now.
    if (clock_stepped_) world_.wall_offset = std::chrono::hours(4);
    world_.run(
        [this] {
          boot_again();
          return all_ready();
        },
        world_.now() + 60s);
    expect(all_ready(), "the fleet did not recover");
    recovered_ = world_.now() + kRecovery;
    world_.run([] { return false; }, world_.now() + kRecovery + 500ms);
  }

  void finish() {
    stop_clients_ = true;
    tasks_.stop();
    expect(world_.run([this] { return clients_ == 0 && tasks_.ended(); }, world_.now() + 100s), "a client waits for ever");
    io::SimProcess* client = world_.find(client_pid_);
    tasks_.begin_audit(client->loop());
    // The dispatcher looks at the wall clock once a minute at least.
    world_.run([this] { return tasks_.audited(); }, world_.now() + 100s);
    tasks_.judge();
    world_.kill(*client, {});
    world_.kill(*world_.find(receiver_pid_), {});
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
    request.argv = {"receiver"};
    receiver_pid_ = (*world_.spawn(nullptr, request))->pid;
    if (options_.tasks) tasks_.begin(loop, 2, 2);
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
        co_await loop.sleep(std::chrono::microseconds(loop.random().below(40000)));
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
    const Time begun = loop.now();
    const auto response = co_await wire::fetch(loop, base::Endpoint::loopback(5000), request, loop.now() + 30s, 1 << 16);
    const std::string what = method + " " + path;
    if (response && response->status == 200) ++counts_["changes of the set"];
    if (response) judge_change(what, response->status, response->body);
    if (!response && !interrupted(begun, loop.now())) broken_.push_back(what + " had no answer: " + base::describe(response.error()));
  }

  // The reasons for which a change may fail, and what must have happened before.
  void judge_change(const std::string& what, unsigned status, const std::string& body) {
    struct Reason {
      unsigned status;
      std::string text;
      bool possible;
    };
    const bool servers_die = options_.replica_kills + options_.replica_stops + options_.failed_spawns + options_.full_tables > 0;
    const bool others_die = !options_.only_replicas_die();
    const std::vector<Reason> reasons = {
        {200, "", true},
        {400, "there is no server", servers_die || others_die},  // it has died since it was asked for
        {400, "is taken", others_die},                           // the answer to an earlier change has been lost
        {500, "did not become ready", servers_die || others_die},
        {503, "stopping", others_die},
        {503, "the master does not answer", options_.faults.link_full > 0 || others_die},
        {507, "could not be saved", options_.full_disks + options_.full_tables > 0},
    };
    const bool stated = std::ranges::any_of(reasons, [&](const Reason& r) { return r.possible && r.status == status && body.contains(r.text); });
    if (!stated) broken_.push_back(what + " got " + std::to_string(status) + ": " + body);
    if (status != 200) ++counts_["changes refused"];
  }

  // Whether a connection to the engine may have broken, or not been made, for a reason that is known.
  bool interrupted(Time from, Time to) const {
    if (options_.network_breaks()) return true;
    return std::ranges::any_of(outages_, [&](Time t) { return t >= from - kRecovery && t <= to; });
  }

  Async<void> ask(io::Loop& loop, io::Stream& stream, Seen& seen) {
    const unsigned body_bytes_max = loop.random().below(5) == 0 ? 40000 : 2000;
    const std::size_t body_bytes = seen.post ? loop.random().below(body_bytes_max) : 0;
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
      if (!seen.status && !interrupted(seen.begun, seen.ended)) broken_.push_back(who + " had no answer, without a reason");
      if (!seen.post && seen.status != 200U && options_.only_replicas_die()) broken_.push_back(who + " failed, and only servers died");
      if (seen.begun >= recovered_ && seen.status != 200U) broken_.push_back(who + " failed after all had recovered");
      if (seen.status == 200U && seen.slot <= 3) judge_key(seen);
    }
  }

  // A key belongs to one of the three slots; another may only have answered if that one was in trouble, or if the key is
  // the fourth server's while there is one (then it moves there, and nowhere else).
  void judge_key(const Seen& seen) {
    const unsigned home = home_of(seen.key);
    if (!ledger_.calm(home, seen.begun, seen.ended)) return;
    ++counts_["answers judged by key"];
    expect(seen.slot == home, "the key " + seen.key + " of slot " + std::to_string(home) + " was answered by slot " + std::to_string(seen.slot));
  }

  // Written anew from what rendezvous hashing is (Thaler and Ravishankar, 1998) and what the program says of itself: the score of
  // a slot is splitmix64 of the key's XXH3 and the slot's number times an odd constant; the highest wins.
  static unsigned home_of(const std::string& key) {
    const std::uint64_t hash = XXH3_64bits(key.data(), key.size());
    std::map<std::uint64_t, unsigned> slots;
    for (unsigned slot = 1; slot <= 3; ++slot) {
      std::uint64_t z = (hash ^ (slot * 0xd6e8feb86659fd93ULL)) + 0x9e3779b97f4a7c15ULL;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
      slots[z ^ (z >> 31)] = slot;
    }
    return slots.rbegin()->second;
  }

  Options options_;
  config::Config config_;
  Ledger ledger_;
  std::vector<Seen> seen_;
  std::vector<std::string> broken_;
  Counts counts_;
  base::Random chaos_;
  std::vector<Chaos> plan_;
  std::vector<Time> outages_;  // when somebody's connection to the engine may have broken, or not been made
  io::SimWorld world_;
  SimDisk disk_;
  TaskSide tasks_;
  pid_t master_pid_ = 0;
  pid_t client_pid_ = 0;
  pid_t receiver_pid_ = 0;
  Time booted_{};
  Time recovered_ = base::kNever;
  unsigned clients_ = 0;
  unsigned power_lost_at_write_ = 0;
  bool clock_stepped_ = false;
  bool stop_clients_ = false;
};

}  // namespace

Result run(std::uint64_t seed, const Options& options) {
  // SIM_LOG=1 shows what the simulated processes log.
  const bool shown = std::getenv("SIM_LOG") != nullptr;  // NOLINT(concurrency-mt-unsafe)
  base::log::set_level(shown ? base::log::Level::info : base::log::Level::off);
  return Scenario(seed, options).run();
}

}  // namespace ringmaster::sim
