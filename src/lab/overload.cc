// From a tenth of the capacity to five times as much: what is answered in time, what is refused, with and without limits.
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

namespace {

constexpr unsigned kServers = 2;
constexpr double kCapacity = kServers * 1000 / kWorkMs;  // requests a second
constexpr Duration kInTime = 250ms;
constexpr std::array kOffered = {0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0};

struct Side {
  std::string name;
  std::string settings;
};

struct Point {
  double goodput = 0;  // a second, like the others
  double refused = 0;
  double failed = 0;  // without an answer, too
  double p99_ms = 0;
  bool whole = false;
};

Async<Point> offer(Lab& lab, Stack& stack, double share, std::string what, Section& section) {
  LoadPlan plan = work_plan(lab, stack, kCapacity * share, lab.choose(4s, 1s));
  const double seconds = std::chrono::duration<double>(plan.duration).count();
  const Time end = lab.loop().system().now() + plan.duration;
  std::uint64_t in_time = 0;
  plan.check = [&](const Answer& answer) {
    if (answer.status == 200 && answer.at - answer.due <= kInTime && answer.at <= end) ++in_time;
    return std::string();
  };
  const LoadResult load = co_await lab.load(std::move(plan), what, section, false);
  co_return Point{static_cast<double>(in_time) / seconds, static_cast<double>(load.refused) / seconds,
                  static_cast<double>(load.failed + load.unfinished) / seconds, base::to_ms(load.latency.percentile(0.99)), !load.interrupted};
}

}  // namespace

Async<Result<void>> overload(Lab& lab, Section& section) {
  const std::array sides = {Side{"limited", "max_in_flight = 2\nqueue_length = 20\nqueue_wait = \"100ms\"\n"}, Side{"without limits", "max_in_flight = 0\n"}};
  section.title = "Overload";
  section.done =
      "Requests of 5 ms came at random times, at 0.1 to 5 times the 400 a second that two servers can do; an answer within 250 ms of the time at which its "
      "request was due counts as goodput if it comes while the load lasts; "
      "once with at most 2 in flight at each server and a queue of 20, and once without limits.";
  Table table{"overload",
              "Each step, per second",
              {"offered ÷ capacity", "offered", "goodput, limited", "refused, limited", "failed, limited", "99 % ms, limited", "goodput, without limits",
               "refused, without limits", "failed, without limits", "99 % ms, without limits"},
              {},
              true};
  std::map<std::size_t, std::vector<std::string>> rows;
  std::array<double, 2> last{};
  Result<void> outcome;
  for (const Side& side : sides) {
    for (std::size_t i = 0; i < kOffered.size() && outcome && !lab.interrupted(); ++i) {
      // A new one for each step: what the last one left waiting would count for this one.
      auto stack = co_await lab.stack(demo_servers(kServers) + "policy = \"least_requests\"\n" + side.settings);
      if (!stack) {
        outcome = std::unexpected(stack.error());
        break;
      }
      if (i == 0) section.configured(side.name, (*stack)->configuration());
      const std::string what = "overload, " + side.name + ", " + cell(kOffered.at(i), 2) + " times the capacity";
      const Point point = co_await offer(lab, **stack, kOffered.at(i), what, section);
      co_await (*stack)->stop();
      if (!point.whole) break;
      if (rows[i].empty()) rows[i] = {cell(kOffered.at(i), 2), cell(kOffered.at(i) * kCapacity, 0)};
      for (const double value : {point.goodput, point.refused, point.failed, point.p99_ms}) rows[i].push_back(cell(value, 1));
      last.at(static_cast<std::size_t>(&side - sides.data())) = point.goodput;
      section.numbers[side.name + ", offered × " + cell(kOffered.at(i), 2) + ", goodput"] = point.goodput;
    }
  }
  for (auto& [i, row] : rows) {
    row.resize(table.columns.size());
    table.add(std::move(row));
  }
  if (rows.size() == kOffered.size() && outcome && !lab.interrupted()) {
    section.outcome = "At five times the capacity " + cell(last[0], 0) +
                      " requests a second were still answered in time with limits (the servers can do 400), and " + cell(last[1], 0) + " without.";
    section.why =
        "With limits whoever cannot be served soon is told so at once (503, with Retry-After), and the servers work only on requests that somebody still waits "
        "for; without limits all wait in line, "
        "the line grows for as long as more comes than goes, and soon every answer is too late.";
  }
  if (!table.rows.empty()) {
    section.pictures.push_back({"overload", "Answers in time (250 ms), from a tenth of the capacity to five times as much",
                                lines(table, "offered", {"goodput, limited", "refused, limited", "goodput, without limits"},
                                      {"offered, requests per second (capacity: 400)", "per second", false, false,
                                       "set yrange [0:800]\nset arrow 1 from 400, graph 0 to 400, graph 1 nohead dt 2 lc rgb '#222222'\n"})});
  }
  section.tables.push_back(std::move(table));
  co_return outcome;
}

}  // namespace ringmaster::lab
