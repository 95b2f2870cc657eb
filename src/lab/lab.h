// What every experiment needs: the loop, what was asked for, a Ringmaster to measure, load with a progress bar, and a
// person who may have had enough.
#pragma once

#include <optional>
#include <span>

#include "lab/report.h"
#include "lab/stack.h"

namespace ringmaster::lab {

struct Settings {
  bool quick = false;
  std::uint64_t requests = 0;  // of each measurement that counts requests; 0: 10,000, or fewer if quick
  std::uint64_t seed = 0;
  std::optional<Target> target;  // a Ringmaster that runs; none: one of our own
  std::string admin;             // its admin API, or empty
  std::string server_field;      // of its answers; see LoadPlan
  std::string request_function;  // the user's own polynomials, for `functions`; empty: none
  std::string virtual_function;
};

// Tells how far a measurement is: a bar on a terminal, else a line when it ends.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void begin(const std::string& what) = 0;  // an experiment, or one of its measurements
  virtual void show(const Load& load) = 0;          // now and then
  virtual void end(const std::string& what) = 0;    // what came out
};

class Lab {
 public:
  Lab(io::Loop& loop, const Settings& settings, Interrupt& interrupt, Progress& progress)
      : loop_(loop), settings_(settings), interrupt_(interrupt), progress_(progress), random_(settings.seed) {}

  io::Loop& loop() const { return loop_; }
  const Settings& settings() const { return settings_; }
  bool interrupted() const { return interrupt_.asked(); }
  base::Random& random() { return random_; }
  // One of two, by how much time there is.
  template <class T>
  T choose(T full, T quick) const {
    return settings_.quick ? quick : full;
  }
  std::uint64_t requests() const;

  // A Ringmaster to measure. It must be stopped by its stop(). `pool`: see Stack::start; not used for one that runs already.
  Async<Result<std::unique_ptr<Stack>>> stack(std::string pool);
  // Runs it, shows how far it is, and says what came out. Whatever was not good is a fault of `section` unless `faults_matter` is false.
  Async<LoadResult> load(LoadPlan plan, std::string what, Section& section, bool faults_matter = true);
  // Awaits the time, or the interrupt.
  Async<void> pause(Duration duration);
  void tell(const std::string& line) { progress_.end(line); }

 private:
  io::Loop& loop_;
  const Settings& settings_;
  Interrupt& interrupt_;
  Progress& progress_;
  base::Random random_;
};

// How many answers each server gave, checked against what the balancer has counted, where that can be known.
struct Counts {
  std::vector<std::string> servers;  // in the order of their slots, where those are known
  std::vector<std::uint64_t> answers;
  LoadResult load;
};
Async<Result<Counts>> count_answers(Lab& lab, Stack& stack, std::uint64_t requests, std::string what, Section& section);

struct Experiment {
  std::string_view name;
  std::string_view summary;  // one line, for --help
  bool runs_anywhere;        // against a Ringmaster that runs, too; else it needs its own, as it changes its configuration
  Async<Result<void>> (*run)(Lab&, Section&);
};
std::span<const Experiment> experiments();

// Requests that cost a server 5 ms, one at a time, at random times; each may have a connection of its own.
// They are given up work_patience() after they were sent.
LoadPlan work_plan(const Lab& lab, const Stack& stack, double rate, Duration duration);
std::chrono::seconds work_patience(const Lab& lab);
inline constexpr double kWorkMs = 5;

// Settings of a pool of so many demo servers, reached by Unix sockets.
std::string demo_servers(unsigned replicas);

}  // namespace ringmaster::lab
