// The command line.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <variant>

#include "cmd/control.h"
#include "cmd/engine.h"
#include "cmd/master.h"
#include "cmd/replica.h"
#include "cmd/version.h"
#include "config/load.h"
#include "io/real_system.h"

namespace ringmaster::cmd {
namespace {

constexpr int kUsage = 2;

int with_config(const std::string& file, const std::function<int(const config::Config&)>& use) {
  io::RealSystem system;
  const auto text = system.read_file(file);
  if (!text) {
    std::fprintf(stderr, "ringmaster: configuration: %s\n", base::describe(text.error()).c_str());
    return kUsage;
  }
  const auto parsed = config::parse(file, *text);
  if (const auto* faults = std::get_if<std::vector<config::Fault>>(&parsed)) {
    std::fputs(config::to_string(file, *faults).c_str(), stderr);
    return kUsage;
  }
  return use(std::get<config::Config>(parsed));
}

int check(const config::Config& config) {
  std::printf("%s: no faults; %zu listener%s, %zu pool%s\n", config.file.c_str(), config.listeners.size(), config.listeners.size() == 1 ? "" : "s",
              config.pools.size(), config.pools.size() == 1 ? "" : "s");
  return 0;
}

// What the chosen subcommand will do; run after the whole line has been parsed.
struct Chosen {
  std::function<int()> run;
};

void add_server_commands(CLI::App& app, Chosen& chosen) {
  static std::string file = "config/demo.toml";
  CLI::App* up = app.add_subcommand("up", "Start the servers and balance over them, until SIGTERM or Ctrl-C");
  up->add_option("--config,-c", file, "The configuration")->capture_default_str();
  up->footer("Example: ringmaster up --config config/demo.toml");
  up->callback([&chosen] { chosen.run = [] { return with_config(file, run_master); }; });

  CLI::App* checking = app.add_subcommand("check", "Check a configuration and name every fault in it");
  checking->add_option("config", file, "The configuration")->required();
  checking->footer("Example: ringmaster check config/demo.toml");
  checking->callback([&chosen] { chosen.run = [] { return with_config(file, check); }; });

  static std::vector<std::string> listen;
  static ReplicaOptions options;
  CLI::App* replica = app.add_subcommand("replica", "The demo server: /home /heartbeat /prime/{n} /echo /sleep/{ms} …");
  replica->add_option("--listen", listen,
                      "Where to serve: 127.0.0.1:8080 or unix:/path; may be repeated. Default: the inherited\n"
                      "sockets (LISTEN_FDS), else 127.0.0.1:$PORT, else 127.0.0.1:8080");
  replica->add_option("--name", options.name, "A name for it");
  replica->add_option("--server-id", options.server_id, "What /home says it is")->envname("SERVER_ID")->capture_default_str();
  replica->footer("Example: SERVER_ID=7 ringmaster replica --listen 127.0.0.1:8080");
  replica->callback([&chosen] {
    chosen.run = [] {
      for (const std::string& text : listen) {
        const auto endpoint = base::Endpoint::parse(text);
        if (!endpoint) {
          std::fprintf(stderr, "ringmaster: --listen: %s\n", base::describe(endpoint.error()).c_str());
          return kUsage;
        }
        options.listen.push_back(*endpoint);
      }
      return run_replica(options);
    };
  });
  app.add_subcommand("engine", "")->group("")->callback([&chosen] { chosen.run = run_engine; });
}

void add_control_commands(CLI::App& app, Chosen& chosen) {
  static ControlOptions options;
  const auto control = [&](const std::string& name, const std::string& what, const std::string& example, int (*run)(const ControlOptions&)) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_option("--admin", options.admin, "The admin API of the Ringmaster to talk to")->capture_default_str();
    command->footer("Example: " + example);
    command->callback([&chosen, run] { chosen.run = [run] { return run(options); }; });
    return command;
  };
  CLI::App* status = control("status", "Show the pools and their replicas", "ringmaster status", run_status);
  status->add_flag("--json", options.json, "As the admin API gives it");
  status->add_flag("--watch,-w", options.watch, "Again every second, with rates, until Ctrl-C");
  control("stop", "Stop Ringmaster and its servers", "ringmaster stop", run_stop);
  CLI::App* add = control("add", "Add replicas", "ringmaster add 2 S5 S4", run_add);
  CLI::App* rm = control("rm", "Remove replicas", "ringmaster rm 1 S5", run_rm);
  for (CLI::App* change : {add, rm}) {
    change->add_option("n", options.count, "How many")->required();
    change->add_option("names", options.names, change == add ? "Their names; the rest get random ones" : "Which; the rest are chosen at random");
    change->add_option("--pool", options.pool, "The pool; needed when there are several");
  }
}

int run(int argc, char** argv) {
  CLI::App app("Ringmaster starts a fleet of servers, keeps it alive, and balances HTTP over it.", "ringmaster");
  app.set_version_flag("--version", std::string("ringmaster ") + kVersion);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  ringmaster up --config config/demo.toml    three servers behind 127.0.0.1:5000\n"
      "  curl http://127.0.0.1:5000/home            ask one of them\n"
      "  ringmaster status                          see them all\n"
      "  ringmaster add 1 S4                        one more\n"
      "Exit codes: 0 done, 1 failed, 2 usage or configuration.");
  Chosen chosen;
  add_server_commands(app, chosen);
  add_control_commands(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : kUsage;
  }
  try {
    return chosen.run();
  } catch (const std::exception& error) {  // an answer that is not the admin API's
    std::fprintf(stderr, "ringmaster: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace ringmaster::cmd

int main(int argc, char** argv) { return ringmaster::cmd::run(argc, argv); }
