// The tasks of a simulated run: who submits them, who works at them, who is told of their end, and what must hold of all that.
//
// Everything that anybody sees of a task goes through observe(); what servers and workers did stands in the book.
#pragma once

#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/sim_world.h"
#include "io/watch.h"
#include "wire/client.h"
#include "wire/server.h"

namespace ringmaster::sim {

using base::Duration;
using base::Time;
using io::Async;
using namespace std::chrono_literals;

// How often everything happened, by name.
using Counts = std::map<std::string, std::uint64_t>;

// One attempt that a server has begun.
struct Execution {
  std::string task;
  unsigned attempt = 0;
  std::string queue;
  int priority = 0;
  Time began{};
  Time ended = base::kNever;
  bool left = false;            // who had asked for it has hung up before its end
  bool suspect = false;         // one of too many at once, unless somebody has left
  io::Watch* client = nullptr;  // while it lasts
  std::string answer;           // done, failed or rejected; empty: none
};

// What servers and workers did, by (task, attempt).
struct TaskBook {
  using Key = std::pair<std::string, unsigned>;
  std::deque<Execution> executions;
  std::map<Key, unsigned> offered;
  std::map<Key, Execution*> executed;
  std::map<Key, unsigned> leased;
  std::map<Key, std::string> concluded;  // what a pull worker has sent: done, failed or rejected
};

class TaskSide {
 public:
  TaskSide(io::SimWorld& world, std::vector<std::string>& broken, Counts& counts) : world_(world), broken_(broken), counts_(counts) {}

  static constexpr unsigned kPerReplica = 2;
  bool database_may_fail = false;
  static const char* config();  // [tasks] and the queues

  // A server's part: an offer.
  Async<void> work(wire::Exchange& exchange, std::vector<Execution*>& present);
  // The receiver's part: a callback.
  Async<void> told(wire::Exchange& exchange);

  // The clients' part, on a machine that nothing happens to.
  void begin(io::Loop& loop, unsigned submitters, unsigned workers);
  void stop() { stopping_ = true; }
  bool ended() const { return clients_ == 0; }
  // Asks for everything until all has ended and been told of.
  void begin_audit(io::Loop& loop) { loop.root().spawn(audit(loop)); }
  bool audited() const { return audited_; }
  const std::string& missing() const { return missing_; }  // what the last round found unfinished
  void judge();

 private:
  struct Submission {
    unsigned number = 0;
    std::string key;
    std::string queue;
    int priority = 0;
    bool callback = false;
    bool delayed = false;
    std::set<std::string> ids;
    std::optional<Time> accepted;  // when the 202 had come
    bool unclear = false;          // a try had no answer: it may be there or not
    unsigned cancels = 0;
    unsigned retries = 0;
  };
  struct Conclusion {
    std::string what;
    std::string state;
    Time seen;
  };
  struct Known {
    Submission* submission = nullptr;
    std::vector<Conclusion> conclusions;
    unsigned told = 0;
  };

  Async<void> submitter(io::Loop& loop);
  Async<void> submit(io::Loop& loop, Submission& submission);
  Async<void> meddle(io::Loop& loop, Submission& submission);
  Async<void> worker(io::Loop& loop, std::string name);
  Async<void> work_at(io::Loop& loop, nlohmann::json leased);
  Async<void> audit(io::Loop& loop);
  Async<std::optional<wire::FetchResponse>> ask(io::Loop& loop, const wire::FetchRequest& request);
  Async<void> check_crowd(io::Loop& loop, std::vector<Execution*> crowd);
  void observe(const nlohmann::json& task, Time asked, const char* where);
  void judge_conclusion(const nlohmann::json& task, const Known& known);
  void judge_order();
  void fault(const std::string& what) { broken_.push_back(what); }

  io::SimWorld& world_;
  std::vector<std::string>& broken_;
  Counts& counts_;
  TaskBook book_;
  std::deque<Submission> submissions_;
  std::map<std::string, Known> known_;
  std::set<std::string> listed_;
  unsigned clients_ = 0;
  bool stopping_ = false;
  bool audited_ = false;
  std::string missing_;
};

// Where callbacks go: a machine that nothing happens to, though its answers are not always good.
class ReceiverProgram final : public io::SimProgram, public wire::Handler {
 public:
  ReceiverProgram(io::SimProcess& process, TaskSide& tasks);
  void kill() override { loop_.root().spawn(end()); }
  bool ended() const override { return ended_; }
  Async<void> handle(wire::Exchange& exchange) override { return tasks_.told(exchange); }

 private:
  Async<void> end();
  io::Loop& loop_;
  TaskSide& tasks_;
  wire::Server server_;
  bool ended_ = false;
};

}  // namespace ringmaster::sim
