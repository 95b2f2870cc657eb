// servers are killed under load. What clients see, and how soon the next one serves in the slot.
#include <charconv>
#include <cmath>

#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

namespace {

constexpr Duration kBin = 10ms;
constexpr Duration kBefore = 200ms;  // of the timeline
constexpr Duration kAfter = 600ms;
constexpr Duration kApart = 1s;  // from one kill to the next

struct Kill {
  unsigned slot = 0;
  Time at{};
  Time detected{};   // the balancer no longer takes it for ready
  Time respawned{};  // the next one's process is there
  Time serves{};     // and ready
  Time answered{};   // its first answer
};

struct Story {
  std::vector<Kill> kills;
  std::map<std::pair<std::int64_t, unsigned>, unsigned> bins;  // (time in kBin from the beginning, slot) → answers
  Time begun{};
  bool over = false;        // no more kills, or no more load
  std::uint64_t looks = 0;  // at the admin API …
  Duration looking{};       // … in so long
};

double ms_from(const Kill& kill, Time to) { return to == Time{} ? NAN : base::to_ms(to - kill.at); }

// Looks at the slot until its next replica serves.
Async<void> follow(Lab& lab, Stack& stack, Story& story, Kill& kill, std::int64_t pid) {
  static constexpr Duration kLook = 1ms;
  static constexpr Duration kLongest = 10s;
  while (kill.serves == Time{} && lab.loop().now() < kill.at + kLongest && !lab.interrupted() && !story.over) {
    const Time before = lab.loop().system().now();
    const auto seen = co_await stack.replicas();
    const Time now = lab.loop().system().now();
    if (seen) {
      const auto replica = std::ranges::find(*seen, kill.slot, &ReplicaSeen::slot);
      const bool there = replica != seen->end();
      const bool next = there && replica->pid != 0 && replica->pid != pid;
      if (kill.detected == Time{} && (!there || next || !replica->ready)) kill.detected = now;
      if (kill.respawned == Time{} && next) kill.respawned = now;
      if (next && replica->ready) kill.serves = now;
    }
    co_await lab.pause(kLook);
    ++story.looks;
    story.looking += lab.loop().system().now() - before;
  }
}

// Kills one server after the other while the load runs.
Async<void> kill_servers(Lab& lab, Stack& stack, Story& story, unsigned kills, Section& section) {
  co_await lab.pause(kApart);
  for (unsigned i = 0; i < kills && !lab.interrupted() && !story.over; ++i) {
    const auto seen = co_await stack.replicas();
    if (!seen || seen->empty()) {
      section.faults.push_back("the servers cannot be seen: " + (seen ? std::string("there are none") : base::describe(seen.error())));
      break;
    }
    const ReplicaSeen victim = (*seen)[i % seen->size()];
    const auto killed = co_await stack.kill(victim);
    if (!killed) {
      section.faults.push_back(base::describe(killed.error()));
      break;
    }
    Kill& kill = story.kills.emplace_back();
    kill.slot = victim.slot;
    kill.at = *killed;
    co_await follow(lab, stack, story, kill, victim.pid);
    if (kill.serves == Time{} && !lab.interrupted()) section.faults.push_back("kill " + std::to_string(i + 1) + ": nobody served in its slot within 10 s");
    const Duration rest = kill.at + kApart - lab.loop().now();
    if (rest > Duration::zero()) co_await lab.pause(rest);
  }
  story.over = true;
}

std::string note(Story& story, const Answer& answer) {
  unsigned slot = 0;
  const auto [end, error] = std::from_chars(answer.server.data(), answer.server.data() + answer.server.size(), slot);
  if (error != std::errc{} || end != answer.server.data() + answer.server.size()) return "an answer that does not say which slot's server it is from";
  ++story.bins[{(answer.at - story.begun) / kBin, slot}];
  if (story.kills.empty()) return {};
  Kill& last = story.kills.back();
  if (last.answered == Time{} && last.respawned != Time{} && slot == last.slot) last.answered = answer.at;
  return {};
}

void conclude(const Story& story, const LoadResult& load, Section& section) {
  Table kills{"recovery", "Milliseconds from each kill", {"kill", "server", "noticed", "next process", "ready", "first answer"}, {}, true};
  std::array<std::vector<double>, 4> times;
  for (std::size_t i = 0; i < story.kills.size(); ++i) {
    const Kill& kill = story.kills[i];
    const std::array moments = {ms_from(kill, kill.detected), ms_from(kill, kill.respawned), ms_from(kill, kill.serves), ms_from(kill, kill.answered)};
    for (std::size_t k = 0; k < moments.size(); ++k) {
      if (std::isfinite(moments.at(k))) times.at(k).push_back(moments.at(k));
    }
    kills.add({std::to_string(i + 1), std::to_string(kill.slot), cell(moments[0], 1), cell(moments[1], 1), cell(moments[2], 1), cell(moments[3], 1)});
  }
  std::vector<unsigned> slots;
  for (const auto& [key, count] : story.bins) {
    if (std::ranges::find(slots, key.second) == slots.end()) slots.push_back(key.second);
  }
  std::ranges::sort(slots);
  Table timeline{"recovery_timeline", "", {"ms"}, {}, false};
  std::vector<std::string> names;
  for (const unsigned slot : slots) names.push_back("server " + std::to_string(slot));
  timeline.columns.insert(timeline.columns.end(), names.begin(), names.end());
  if (!story.kills.empty() && !slots.empty()) {
    const std::int64_t zero = (story.kills.front().at - story.begun) / kBin;
    for (std::int64_t bin = -(kBefore / kBin); bin <= kAfter / kBin; ++bin) {
      std::vector<std::string> row = {std::to_string(bin * (kBin / 1ms))};
      for (const unsigned slot : slots) {
        const auto found = story.bins.find({zero + bin, slot});
        row.push_back(std::to_string(found == story.bins.end() ? 0 : found->second));
      }
      timeline.add(std::move(row));
    }
    section.pictures.push_back(
        {"recovery", "Answers in each 10 ms while server " + std::to_string(story.kills.front().slot) + " is killed and replaced",
         lines(timeline, "ms", names,
               {"milliseconds from the kill", "answers in 10 ms", false, false,
                "set arrow 1 from 0, graph 0 to 0, graph 1 nohead dt 2 lc rgb '#222222'\nset label 1 'SIGKILL' at 5, graph 0.97 tc rgb '#222222'\n"},
               false)});
    section.pictures.push_back({"recovery_times", "Milliseconds from SIGKILL to each step, kill by kill",
                                bars(kills, "kill", {"noticed", "next process", "ready", "first answer"}, {"kill", "milliseconds", false, false, {}})});
  }
  const auto failed = load.failed + load.refused + (load.interrupted ? 0 : load.unfinished);
  section.numbers["failed requests"] = failed;
  section.numbers["requests"] = load.good + failed;
  static constexpr std::array kSteps = {"noticed", "next process", "ready", "first answer"};
  for (std::size_t k = 0; k < times.size(); ++k) {
    if (!times.at(k).empty()) section.numbers[std::string(kSteps.at(k)) + ", median ms"] = median(times.at(k));
  }
  section.outcome = cell(load.good) + " requests were answered and " + cell(failed) + " failed";
  if (!times[3].empty()) {
    section.outcome += "; the death was noticed after " + cell(median(times[0]), 1) + " ms, the next process was there after " + cell(median(times[1]), 1) +
                       " ms, ready after " + cell(median(times[2]), 1) + " ms, and its first answer came after " + cell(median(times[3]), 1) +
                       " ms (medians of " + std::to_string(times[3].size()) + " kills; all but the last are seen by asking the admin API, about every " +
                       cell(base::to_ms(story.looking) / static_cast<double>(std::max<std::uint64_t>(story.looks, 1)), 1) +
                       " ms); the slowest answer to any request took " + cell(base::to_ms(load.latency.percentile(1)), 0) + " ms";
  }
  section.outcome += ".";
  section.tables.push_back(std::move(kills));
  section.tables.push_back(std::move(timeline));
}

}  // namespace

Async<Result<void>> recovery(Lab& lab, Section& section) {
  static constexpr double kShareOfMost = 0.3;
  const unsigned kills = lab.choose(20U, 5U);
  section.title = "Servers killed under load";
  auto stack = co_await lab.stack(demo_servers(3) + "policy = \"rendezvous\"\nkey = \"request_id\"\n");
  if (!stack) co_return std::unexpected(stack.error());
  section.configured("recovery", (*stack)->configuration());
  if (!(*stack)->has_admin()) {
    co_await (*stack)->stop();
    co_return base::fail(base::Code::invalid, "to know whom to kill, and when the next one is there, it needs the admin API: --admin 127.0.0.1:5001");
  }
  LoadPlan plan;
  plan.target = (*stack)->target("/home");
  plan.duration = lab.choose(2s, 1s);
  const std::string most_name = "recovery, as much as goes";
  const LoadResult most = co_await lab.load(plan, most_name, section);

  Story story;
  plan.arrivals = LoadPlan::Arrivals::poisson;
  plan.rate = std::max(most.rate() * kShareOfMost, 1.0);
  plan.connections = 500;
  plan.duration = Duration::zero();
  plan.ended = [&story] { return story.over; };
  plan.check = [&story](const Answer& answer) { return note(story, answer); };
  section.done = "Requests came at random times, " + cell(plan.rate, 0) +
                 " a second (30 % of what went through at most), while one server after the other was ended by SIGKILL, " + std::to_string(kills) +
                 " in all, a second apart.";
  section.why =
      "The balancer is the servers' parent and hears of a death from the kernel, so it has no check to wait for; a request that was under way there and is "
      "idempotent goes to another server, "
      "and the next process, which starts at once in the same slot, gets its requests as soon as its first check succeeds.";
  story.begun = lab.loop().system().now();
  io::Scope killing(lab.loop());
  killing.spawn(kill_servers(lab, **stack, story, kills, section));
  const std::string what = "recovery, " + std::to_string(kills) + " kills";
  const LoadResult load = co_await lab.load(std::move(plan), what, section);
  story.over = true;
  co_await killing.join();
  co_await (*stack)->stop();
  conclude(story, load, section);
  co_return Result<void>{};
}

}  // namespace ringmaster::lab
