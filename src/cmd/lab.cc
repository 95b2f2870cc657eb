#include "cmd/lab.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/json.h"
#include "base/log.h"
#include "base/names.h"
#include "cmd/version.h"
#include "http/target.h"
#include "io/real_system.h"
#include "io/resolve.h"
#include "lab/compare.h"

namespace ringmaster::cmd {

using base::Code;
using base::Result;
using io::Async;
using lab::json;

namespace {

// To standard error: standard output is for results.
class Terminal final : public lab::Progress {
 public:
  explicit Terminal(io::System& system) : system_(system), is_one_(::isatty(STDERR_FILENO) == 1) {}

  void begin(const std::string& what) override {
    what_ = what;
    begun_ = said_ = system_.now();
    if (is_one_) print("… " + what);
  }
  void show(const lab::Load& load) override {
    static constexpr unsigned kWidth = 20;
    static constexpr base::Duration kEvery = std::chrono::seconds(10);  // lines
    const double share = load.share_done();
    const double seconds = std::chrono::duration<double>(system_.now() - begun_).count();
    const std::string rate = lab::cell(static_cast<double>(load.result().good) / std::max(seconds, 0.001), 0) + "/s";
    const std::string left = share > 0.01 ? ", " + lab::cell(seconds / share - seconds, 0) + " s left" : "";
    if (!is_one_) {
      if (system_.now() - said_ < kEvery) return;
      said_ = system_.now();
      std::fprintf(stderr, "%s: %s %%, %s%s\n", what_.c_str(), lab::cell(share * 100, 0).c_str(), rate.c_str(), left.c_str());
      return;
    }
    std::string bar;
    for (std::size_t i = 0; i < kWidth; ++i) bar += i < static_cast<std::size_t>(share * kWidth) ? "█" : "░";
    print(bar + " " + lab::cell(share * 100, 0) + " %, " + rate + left + "  " + what_);
  }
  void end(const std::string& what) override {
    if (is_one_) std::fputs("\r\033[K", stderr);
    std::fprintf(stderr, "%s\n", base::log::printable(what, 1000).c_str());
  }

 private:
  void print(const std::string& text) {
    // Without line wrap: what does not fit is not shown, and does not scroll.
    std::fprintf(stderr, "\r\033[K\033[?7l%s\033[?7h", text.c_str());
    std::fflush(stderr);
  }
  io::System& system_;
  bool is_one_;
  std::string what_;
  base::Time begun_{};
  base::Time said_{};
};

// The first Ctrl-C ends what runs, in order; the second one everything.
Async<void> await_interrupt(io::Loop& loop, io::Handle signals, lab::Interrupt& interrupt) {
  io::Stream stream(loop, std::move(signals), base::Endpoint{});
  std::array<char, 1> number{};
  for (int times = 0;; ++times) {
    const auto got = co_await stream.read(number, base::kNever);
    if (!got) co_return;
    if (times > 0) std::_Exit(130);
    std::fputs("\nending; what was measured is kept (once more: at once)\n", stderr);
    interrupt.ask();
  }
}

// Where a URL leads: each address that its name has. Refused unless that is this machine or the person says that it may be.
Async<Result<std::vector<lab::Target>>> find_targets(io::Loop& loop, std::string url, bool may_be_elsewhere) {
  std::string_view authority;
  std::string_view rest;
  if (!url.starts_with("http://") || !http::split_absolute(url, authority, rest)) {
    co_return base::fail(Code::invalid, "'" + url + "' must be of the form http://127.0.0.1:5000/home");
  }
  std::string address(authority);
  if (http::host_of(authority) == authority) address += ":80";
  const auto found = co_await io::resolve(loop, address);
  if (!found) co_return base::fail(found.error().code, url + ": " + base::describe(found.error()));
  std::vector<lab::Target> targets;
  for (const base::Endpoint& endpoint : *found) {
    base::Endpoint here = endpoint;
    here.port = 0;
    // An address is this machine's if one can listen on it.
    if (!may_be_elsewhere && !loop.system().listen(here, {.backlog = 1})) {
      co_return base::fail(Code::denied, base::address_text(here) + " is not an address of this machine; load is sent elsewhere only with --i-own-this-target");
    }
    std::string path(rest.empty() ? "/home" : rest);
    if (!path.starts_with('/')) path.insert(0, "/");
    targets.push_back({endpoint, std::string(authority), std::move(path)});
  }
  co_return targets;
}

// One request, so that a wrong address or path is said once and not counted ten thousand times.
Async<Result<void>> try_target(io::Loop& loop, lab::Target target) {
  wire::FetchRequest request;
  request.target = base::replace_all(target.path, "{i}", "0");
  request.host = target.host;
  const std::string url = "http://" + target.host + target.path;
  const auto answer = co_await wire::fetch(loop, target.endpoint, request, loop.now() + std::chrono::seconds(10), 16 << 20);
  if (!answer) co_return base::fail(answer.error().code, "the target " + url + " does not answer (" + base::describe(answer.error()) + "); is it running?");
  if (answer->status >= 200 && answer->status < 300) co_return Result<void>{};
  std::string text = "the target " + url + " answers " + std::to_string(answer->status);
  if (answer->status == 404 || answer->status == 400) text += ": is the path right?";
  if (answer->status == 503) text += ": it has no server that is ready";
  if (!answer->body.empty()) text += " It says: " + base::log::printable(answer->body, 200);
  co_return base::fail(Code::invalid, text);
}

// The first of its addresses that answers, and well.
Async<Result<lab::Target>> choose_target(io::Loop& loop, std::string url, bool may_be_elsewhere) {
  const auto targets = co_await find_targets(loop, url, may_be_elsewhere);
  if (!targets) co_return std::unexpected(targets.error());
  Result<lab::Target> chosen = base::fail(Code::unreachable, url + " has no address");
  for (const lab::Target& target : *targets) {
    const auto answers = co_await try_target(loop, target);
    if (answers) co_return target;
    chosen = std::unexpected(answers.error());
  }
  co_return chosen;
}

std::string first_line_with(io::System& system, const std::string& file, const std::string& begin) {
  const auto text = system.read_file(file);
  if (!text) return {};
  const std::size_t at = text->find(begin);
  if (at == std::string::npos) return {};
  std::string line = text->substr(at, text->find('\n', at) - at);
  const std::size_t colon = line.find(':');
  if (colon == std::string::npos) return line;
  const std::size_t value = line.find_first_not_of(" \t", colon + 1);
  return value == std::string::npos ? std::string() : line.substr(value);
}

std::string trimmed(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

json describe_run(io::System& system, const LabOptions& options) {
  const auto kernel = system.read_file("/proc/sys/kernel/osrelease");
  const auto started = std::chrono::floor<std::chrono::seconds>(system.wall_now());
  const std::string processor = first_line_with(system, "/proc/cpuinfo", "model name");
  return {{"version", std::string("Ringmaster ") + kVersion},
          {"started", fmt::format("{:%F %T} UTC", started)},
          {"machine", std::to_string(::sysconf(_SC_NPROCESSORS_ONLN)) + " processors" + (processor.empty() ? "" : " (" + processor + ")") + ", memory " +
                          first_line_with(system, "/proc/meminfo", "MemTotal") + ", Linux " + (kernel ? trimmed(*kernel) : "?")},
          {"compiler", __VERSION__},
          {"command", options.command_line},
          {"quick", options.settings.quick},
          {"seed", options.settings.seed},
          {"target", options.url.empty() ? "a Ringmaster of the lab's own" : options.url},
          {"experiments", json::object()}};
}

Async<Result<bool>> run_experiment(lab::Lab& lab, const lab::Experiment& experiment, lab::Report& report) {
  lab::Section section;
  section.name = experiment.name;
  section.title = experiment.summary;
  const base::Time begun = lab.loop().now();
  const auto ran = co_await experiment.run(lab, section);
  if (!ran && !lab.interrupted()) section.faults.push_back("it could not go on: " + base::describe(ran.error()));
  section.interrupted |= lab.interrupted();
  section.seconds = std::chrono::duration<double>(lab.loop().now() - begun).count();
  const bool good = section.faults.empty();
  for (const std::string& fault : section.faults) lab.tell(section.name + ": " + fault);
  lab.tell(section.name + ": " + (section.outcome.empty() ? "it did not come to an end; what was measured is in the report" : section.outcome));
  const auto added = co_await report.add(std::move(section));
  if (!added) co_return base::fail(added.error().code, "the report cannot be written: " + base::describe(added.error()));
  co_return good;
}

Async<Result<bool>> run_experiments(io::Loop& loop, LabOptions& options, lab::Interrupt& interrupt, lab::Progress& progress) {
  if (options.settings.seed == 0) options.settings.seed = 1 + loop.random().below(1'000'000);
  if (!options.url.empty()) {
    auto target = co_await choose_target(loop, options.url, options.own_target);
    if (!target) co_return std::unexpected(target.error());
    options.settings.target = std::move(*target);
  }
  lab::Report report(loop, options.out, describe_run(loop.system(), options));
  if (const auto opened = report.open(); !opened) {
    co_return base::fail(opened.error().code, "the report cannot be written: " + base::describe(opened.error()));
  }
  lab::Lab lab(loop, options.settings, interrupt, progress);
  bool good = true;
  const bool all = options.experiments == std::vector<std::string>{"all"};
  for (const lab::Experiment& experiment : lab::experiments()) {
    const bool asked = all || std::ranges::find(options.experiments, experiment.name) != options.experiments.end();
    if (!asked || interrupt.asked()) continue;
    if (all && options.settings.target && experiment.name == "recovery") {
      lab.tell("left out: recovery kills servers of a Ringmaster that runs only when it is asked for by name");
      continue;
    }
    if (options.settings.target && !experiment.runs_anywhere) {
      const std::string why = std::string(experiment.name) + " compares configurations and needs a Ringmaster of its own: leave --url out";
      if (!all) co_return base::fail(Code::invalid, why);
      lab.tell("left out: " + why);
      continue;
    }
    const auto ran = co_await run_experiment(lab, experiment, report);
    if (!ran) co_return std::unexpected(ran.error());
    good = good && *ran;
  }
  if (!report.trouble().empty()) lab.tell(report.trouble());
  lab.tell("the report: " + report.page_path());
  co_return good && !interrupt.asked();
}

void print_load(const lab::LoadResult& result, bool as_json) {
  const auto ms = [](const base::Histogram& histogram, double share) { return base::to_ms(histogram.percentile(share)); };
  if (as_json) {
    json out = {{"sent", result.sent},
                {"good", result.good},
                {"refused", result.refused},
                {"failed", result.failed},
                {"unfinished", result.unfinished},
                {"seconds", std::chrono::duration<double>(result.took).count()},
                {"rate", result.rate()},
                {"connections", result.connections},
                {"mean_ms", base::to_ms(result.latency.mean())}};
    for (const auto& [name, share] : {std::pair{"p50_ms", 0.5}, {"p90_ms", 0.9}, {"p99_ms", 0.99}, {"p999_ms", 0.999}, {"max_ms", 1.0}})
      out[name] = ms(result.latency, share);
    out["service_p50_ms"] = ms(result.service, 0.5);
    out["service_p99_ms"] = ms(result.service, 0.99);
    out["lateness_p99_ms"] = ms(result.lateness, 0.99);
    out["faults"] = result.faults;
    out["interrupted"] = result.interrupted;
    std::printf("%s\n", base::json_text(out).c_str());
    return;
  }
  std::printf("%llu requests in %.2f s over %u connections: %.0f/s\n", static_cast<unsigned long long>(result.sent),
              std::chrono::duration<double>(result.took).count(), result.connections, result.rate());
  std::printf("  good %llu, refused %llu, failed %llu, unfinished %llu\n", static_cast<unsigned long long>(result.good),
              static_cast<unsigned long long>(result.refused), static_cast<unsigned long long>(result.failed),
              static_cast<unsigned long long>(result.unfinished));
  if (!result.faults.empty()) std::printf("  not good: %s\n", base::log::printable(result.describe_faults(), 500).c_str());
  std::printf("  latency ms: mean %.3f, 50 %% %.3f, 90 %% %.3f, 99 %% %.3f, 99.9 %% %.3f, max %.3f\n", base::to_ms(result.latency.mean()),
              ms(result.latency, 0.5), ms(result.latency, 0.9), ms(result.latency, 0.99), ms(result.latency, 0.999), ms(result.latency, 1));
  if (result.lateness.total() > 0) {
    std::printf("  counted from when requests were due; from when they were sent: 50 %% %.3f, 99 %% %.3f; the generator itself was late by 99 %% %.3f\n",
                ms(result.service, 0.5), ms(result.service, 0.99), ms(result.lateness, 0.99));
  }
}

Async<Result<bool>> run_one_load(io::Loop& loop, LoadOptions& options, lab::Interrupt& interrupt, lab::Progress& progress) {
  auto target = co_await choose_target(loop, options.url, options.own_target);
  if (!target) co_return std::unexpected(target.error());
  options.plan.target = std::move(*target);
  for (const std::string& path : options.paths) {
    if (!path.starts_with('/')) co_return base::fail(Code::invalid, "--path '" + path + "' must begin with /");
  }
  options.plan.paths = options.paths;
  lab::Settings settings;
  settings.seed = loop.random().next();
  settings.server_field = options.plan.server_field;
  lab::Lab lab(loop, settings, interrupt, progress);
  lab::Section section;
  const std::string what = options.url;
  const lab::LoadResult result = co_await lab.load(options.plan, what, section, false);
  print_load(result, options.json);
  if (!result.ended_because.empty()) co_return base::fail(Code::unavailable, "ended early: " + result.ended_because);
  co_return result.failed == 0;
}

// Runs `work` on a loop of its own until it ends. Exit code: 0 if it was good, 1 if not, 2 if nothing could be tried.
template <class Options>
int run_on_loop(Options& options, Async<Result<bool>> (*work)(io::Loop&, Options&, lab::Interrupt&, lab::Progress&)) {
  base::log::start("lab", base::log::Level::warning);
  io::RealSystem system;
  static constexpr std::array kSignals = {SIGTERM, SIGINT, SIGHUP};
  auto signals = system.signals(kSignals);
  ::signal(SIGPIPE, SIG_IGN);
  if (!signals) return 1;
  system.raise_descriptor_limit();
  io::Loop loop(system);
  lab::Interrupt interrupt;
  Terminal terminal(system);
  Result<bool> outcome = base::fail(Code::internal);
  const auto fiber = [](io::Loop& l, Options& o, Async<Result<bool>> (*w)(io::Loop&, Options&, lab::Interrupt&, lab::Progress&), lab::Interrupt& i,
                        lab::Progress& p, Result<bool>& out) -> Async<void> {
    out = co_await w(l, o, i, p);
    l.stop();
  };
  loop.root().spawn(await_interrupt(loop, std::move(*signals), interrupt));
  loop.root().spawn(fiber(loop, options, work, interrupt, terminal, outcome));
  loop.run();
  if (!outcome) {
    std::fprintf(stderr, "ringmaster: %s\n", base::describe(outcome.error()).c_str());
    return outcome.error().code == Code::invalid || outcome.error().code == Code::denied ? 2 : 1;
  }
  return *outcome ? 0 : 1;
}

}  // namespace

int run_lab(LabOptions options) {
  static constexpr std::uint64_t kLong = 100'000'000;
  static constexpr std::uint64_t kPerSecond = 50'000;  // of a machine with two processors
  if (options.settings.requests >= kLong) {
    std::fprintf(stderr, "%llu requests for each measurement will take hours (some %llu s each); Ctrl-C ends it and keeps what was measured\n",
                 static_cast<unsigned long long>(options.settings.requests), static_cast<unsigned long long>(options.settings.requests / kPerSecond));
  }
  return run_on_loop(options, run_experiments);
}

int run_load(LoadOptions options) {
  using Arrivals = lab::LoadPlan::Arrivals;
  options.plan.duration = std::chrono::duration_cast<base::Duration>(std::chrono::duration<double>(options.seconds));
  options.plan.timeout = std::chrono::duration_cast<base::Duration>(std::chrono::duration<double>(options.timeout_s));
  if (options.plan.rate > 0) options.plan.arrivals = options.poisson ? Arrivals::poisson : Arrivals::even;
  if (options.plan.requests == 0 && options.plan.per_connection == 0 && options.seconds == 0) options.plan.duration = std::chrono::seconds(10);
  return run_on_loop(options, run_one_load);
}

int run_compare(const std::string& before, const std::string& after) {
  io::RealSystem system;
  const auto text = lab::compare(system, before, after);
  if (!text) {
    std::fprintf(stderr, "ringmaster: %s\n", base::describe(text.error()).c_str());
    return 2;
  }
  std::fputs(text->c_str(), stdout);
  return 0;
}

}  // namespace ringmaster::cmd
