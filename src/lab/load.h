// The load generator: requests over many connections, and what came of each.
//
//   closed loop   each connection sends its next request when it has the answer to the last: as fast as the target goes
//   open loop     requests have their times, evenly or at random (Poisson), whatever the target does; a latency counts from
//                 the time at which the request was due, so that a target that stalls cannot hide it by keeping others from
//                 being sent ("coordinated omission"; Gil Tene, "How NOT to Measure Latency")
//
// Every answer is checked. Nothing grows with the number of requests but, in an open loop, the line of those that are due and have no connection; that is
// bounded. On the loop's thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "base/random.h"
#include "lab/interrupt.h"
#include "wire/client.h"

namespace ringmaster::lab {

using base::Duration;
using base::Endpoint;
using base::Result;
using base::Time;
using io::Async;

// Where requests go.
struct Target {
  Endpoint endpoint;
  std::string host;            // of the Host field
  std::string path = "/home";  // with its query
};

// A request's whole answer; valid during the call that it is given to.
struct Answer {
  std::uint64_t number;  // of the request, from 0
  unsigned connection;   // from 0
  unsigned status;
  std::string_view server;  // who says that it has answered; empty: nobody
  std::string_view body;    // the first kBodyBytesMax of it
  Time due;                 // when the request should have been sent
  Time at;                  // when the answer was complete
};

struct LoadPlan {
  Target target;
  // In turns; "{i}" stands for the request's number. Empty: the target's path.
  std::vector<std::string> paths;
  // In place of `paths`: the path of the request of this number.
  std::function<std::string(std::uint64_t)> path_of;
  bool numbered = false;  // each request carries its number, as X-Request-Id
  unsigned connections = 64;
  std::uint64_t requests = 0;        // in all; 0: no limit
  std::uint64_t per_connection = 0;  // closed loop: of each connection; 0: no limit
  Duration duration{};               // zero: no limit
  enum class Arrivals : std::uint8_t { closed, even, poisson } arrivals = Arrivals::closed;
  double rate = 0;                              // open loop: requests a second
  Duration timeout = std::chrono::seconds(10);  // of a request
  std::string server_field;                     // of an answer, that names its server; empty: "Server: X" in its body
  std::uint64_t seed = 1;                       // of Poisson's times
  std::function<bool()> ended;                  // asked a few times a second: whether it is over
  // Sees every answer. What is wrong with it, in a few words; empty: nothing.
  std::function<std::string(const Answer&)> check;
};

struct LoadResult {
  std::uint64_t sent = 0;
  std::uint64_t good = 0;                       // 2xx, and nothing wrong with it
  std::uint64_t refused = 0;                    // 429 or 503: the target said that it has enough
  std::uint64_t failed = 0;                     // all else
  std::uint64_t unfinished = 0;                 // under way, or due, when it was ended
  std::map<std::string, std::uint64_t> faults;  // of the refused and the failed: what, and how often
  base::Histogram latency;                      // of good answers, from when they were due
  base::Histogram service;                      // the same from when they were sent
  base::Histogram waited;                       // of all requests that were due: until they were answered, refused, failed or given up
  base::Histogram lateness;                     // open loop: from due to sent, where a connection was free at once
  unsigned connections = 0;                     // that were used
  Duration took{};                              // with the end of what was under way
  Duration sending{};                           // of that, while there were more to send …
  std::uint64_t good_while_sending = 0;         // … and the good answers that came in that time
  bool interrupted = false;
  std::string ended_because;  // it ended early for this reason; empty: it did not

  // Good answers a second, while there was load.
  double rate() const { return sending.count() <= 0 ? 0 : static_cast<double>(good_while_sending) / std::chrono::duration<double>(sending).count(); }
  std::string describe_faults() const;  // "12 × status 502, 3 × connection refused"
};

class Load {
 public:
  static constexpr std::size_t kBodyBytesMax = 64 << 10;
  static constexpr unsigned kConnectionsMax = 10000;
  static constexpr std::size_t kWaitingMax = 1'000'000;

  Load(io::Loop& loop, LoadPlan plan, Interrupt& interrupt);

  Async<void> run();
  const LoadResult& result() const { return result_; }
  // How much of it is done, 0 to 1; of whichever limit is nearest.
  double share_done() const;
  const LoadPlan& plan() const { return plan_; }

 private:
  struct Connection;
  using Arrivals = LoadPlan::Arrivals;

  // An open loop's request whose time has come.
  struct Due {
    Time at;
    bool at_once;  // a connection was free
  };

  bool over() const { return over_ || connections_.cancelled() || (plan_.requests != 0 && next_ >= plan_.requests); }
  Async<void> closed(std::unique_ptr<Connection> connection);
  Async<void> open(std::unique_ptr<Connection> connection);
  Async<void> pace();
  void give(Time due);
  Async<void> request(Connection& connection, Due due);
  Async<Result<void>> exchange(Connection& connection, wire::ResponseReader& reader, std::uint64_t number, Time deadline);
  void compose(std::string& text, std::uint64_t number) const;
  void judge(const Answer& answer, Time sent);
  void blame(const std::string& what);
  Async<void> watch();
  void finish();

  io::Loop& loop_;
  LoadPlan plan_;
  Interrupt& interrupt_;
  LoadResult result_;
  base::Random random_;
  Time begun_{};
  Time last_good_{};
  std::uint64_t next_ = 0;  // number of the next request
  std::uint64_t bad_in_a_row_ = 0;
  bool over_ = false;              // no more requests
  std::vector<Connection*> idle_;  // open loop: the last one used is used next
  std::deque<Due> waiting_;        // open loop: due, and no connection free
  wire::ObjectPool<wire::ResponseReader> readers_;
  io::Scope connections_;
  io::Scope watching_;
};

}  // namespace ringmaster::lab
