// The command line.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <variant>

#include "cmd/control.h"
#include "cmd/engine.h"
#include "cmd/lab.h"
#include "cmd/master.h"
#include "cmd/replica.h"
#include "cmd/task.h"
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
  for (const config::Pool& pool : config.pools) {
    if (::geteuid() == 0 && !pool.command.empty() && pool.user.empty()) {
      std::fprintf(stderr, "%s: warning: the servers of pool '%s' would run as root: give it a user = \"…\"\n", config.file.c_str(), pool.name.c_str());
    }
  }
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
  CLI::App* replica = app.add_subcommand("replica", "The demo server: /home /heartbeat /prime/{n} /echo /sleep/{ms} /work/{ms} /task …");
  replica->add_option("--listen", listen,
                      "Where to serve: 127.0.0.1:8080 or unix:/path; may be repeated. Default: the inherited\n"
                      "sockets (LISTEN_FDS), else 127.0.0.1:$PORT, else 127.0.0.1:8080");
  replica->add_option("--name", options.name, "A name for it");
  replica->add_option("--server-id", options.server_id, "What /home says it is")->envname("SERVER_ID")->capture_default_str();
  const CLI::Validator url(
      [](std::string& text) {
        const std::size_t colon = text.rfind(':');
        const bool good = text.starts_with("http://") && colon > 4 && text.find_first_of("/?#@ ", 7) == std::string::npos && colon + 1 < text.size();
        return good ? std::string() : "'" + text + "' must be of the form http://10.0.0.1:5000";
      },
      "URL");
  replica->add_option("--register", options.balancer, "Announce itself to this Ringmaster, as http://10.0.0.1:5000, and again while it runs")->check(url);
  replica->add_option("--advertise", options.advertise, "The URL under which it announces itself; default: the address towards that Ringmaster")->check(url);
  replica->add_option("--ttl", options.ttl_s, "Seconds after which it is forgotten unless it announces itself again; default: never")
      ->check(CLI::Range(1, 86400));
  replica->add_option("--token", options.token, "The token that the Ringmaster asks for")->envname("RINGMASTER_TOKEN");
  replica->add_option("--slowness", options.slowness, "So many times as long for /work, which serves one request at a time")->check(CLI::Range(1, 1000));
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

void add_admin_options(CLI::App& command, AdminAddress& admin) {
  CLI::Option* address = command.add_option("--admin", admin.address,
                                            "The admin API of the Ringmaster to talk to: 127.0.0.1:5001, http://…, or unix:/path.\n"
                                            "Default: .ringmaster/admin.sock if it is there, else 127.0.0.1:5001");
  address->each([&admin](const std::string&) { admin.given = true; });
  command.add_option("--config,-c", admin.config, "The configuration of that Ringmaster, which says where its admin API is")->excludes(address);
  command.add_option("--token-file", admin.token_file, "A file whose first line is the token that the admin API asks for");
}

void add_control_commands(CLI::App& app, Chosen& chosen) {
  static ControlOptions options;
  const auto control = [&](const std::string& name, const std::string& what, const std::string& example, int (*run)(const ControlOptions&)) {
    CLI::App* command = app.add_subcommand(name, what);
    add_admin_options(*command, options.admin);
    command->footer("Example: " + example);
    command->callback([&chosen, run] { chosen.run = [run] { return run(options); }; });
    return command;
  };
  CLI::App* status = control("status", "Show the pools and their replicas", "ringmaster status", run_status);
  status->add_flag("--json", options.json, "As the admin API gives it");
  status->add_flag("--watch,-w", options.watch, "Again every second, with rates, until Ctrl-C");
  status->add_flag("--ready", options.ready, "Only end with 0 if every pool can serve, else with 1");
  CLI::App* logs = control("logs", "What a replica has written of late", "ringmaster logs 'Server 1' --follow", run_logs);
  logs->add_option("name", options.replica, "Its name")->required();
  logs->add_option("--pool", options.pool, "The pool; needed when there are several");
  logs->add_flag("--follow,-f", options.follow, "And what it will write, until Ctrl-C");
  CLI::App* stop = control("stop", "Stop Ringmaster and its servers, and wait for their end", "ringmaster stop", run_stop);
  stop->add_flag("--no-wait", options.no_wait, "Do not wait");
  CLI::App* add = control("add", "Add replicas", "ringmaster add 2 S5 S4", run_add);
  CLI::App* rm = control("rm", "Remove replicas", "ringmaster rm 1 S5", run_rm);
  for (CLI::App* change : {add, rm}) {
    change->add_option("n", options.count, "How many")->required();
    change->add_option("names", options.names, change == add ? "Their names; the rest get random ones" : "Which; the rest are chosen at random");
    change->add_option("--pool", options.pool, "The pool; needed when there are several");
  }
}

void add_task_commands(CLI::App& app, Chosen& chosen) {
  static TaskOptions options;
  CLI::App* task = app.add_subcommand("task", "Submit tasks, and see what has become of them");
  task->require_subcommand(1);
  const auto command = [&](const std::string& name, const std::string& what, const std::string& example, int (*run)(const TaskOptions&)) {
    CLI::App* sub = task->add_subcommand(name, what);
    add_admin_options(*sub, options.admin);
    sub->footer("Example: ringmaster task " + example);
    sub->callback([&chosen, run] { chosen.run = [run] { return run(options); }; });
    return sub;
  };
  CLI::App* submit = command("submit", "Submit one, or a file of them", "submit expression '{\"expression\":\"2*(3+4)\"}' --wait 10", run_task_submit);
  submit->add_option("type", options.type, "What kind of task it is");
  submit->add_option("payload", options.payload, "What it is about, as JSON");
  submit->add_option("--file,-f", options.file, "A file with one task as JSON in each line ({\"type\":…,\"payload\":…}); - for standard input");
  submit->add_option("--queue", options.queue, "The queue; default: the first that is configured");
  submit->add_option("--delay-ms", options.delay_ms, "Not before so many milliseconds");
  submit->add_option("--priority", options.priority, "-1000 to 1000; higher first");
  submit->add_option("--wait", options.wait_s, "Wait for its end, at most so many seconds")->check(CLI::Range(0, 300));
  CLI::App* list = command("list", "The newest tasks", "list --state failed", run_task_list);
  list->add_option("--state", options.state, "scheduled, pending, in_progress, done, failed, cancelled or expired");
  list->add_option("--type", options.type, "Of this type only");
  list->add_option("--queue", options.queue, "Of this queue only");
  list->add_option("--limit", options.limit, "How many, 1 to 1000")->capture_default_str();
  list->add_flag("--json", options.json, "As the admin API gives it");
  for (CLI::App* one : {command("get", "One task, whole", "get 0123456789abcdef", run_task_get),
                        command("wait", "Wait for its end; exit code 0 if it is done", "wait 0123456789abcdef", run_task_wait),
                        command("cancel", "Cancel it, even while it runs", "cancel 0123456789abcdef", run_task_cancel),
                        command("retry", "Try a failed, cancelled or expired one again", "retry 0123456789abcdef", run_task_retry)}) {
    one->add_option("id", options.id, "Its id")->required();
  }
}

void add_lab_experiments(CLI::App& command, Chosen& chosen, LabOptions& options, const std::string& command_line) {
  const auto experiment = [&](const std::string& name, const std::string& what) {
    CLI::App* sub = command.add_subcommand(name, what);
    sub->add_flag("--quick", options.settings.quick, "Measure less: all of it in three minutes");
    sub->add_option("--out,-o", options.out, "The report's folder")->capture_default_str();
    sub->add_option("--requests", options.settings.requests, "Of each measurement that counts requests; default: 10000, or 2000 with --quick")
        ->check(CLI::Range(1ULL, 4'000'000'000ULL));
    sub->add_option("--seed", options.settings.seed, "Of all that the lab draws at random; default: another one each time");
    sub->footer("Example: ringmaster lab " + name + " --quick --out lab-report");
    sub->callback([&chosen, &options, name, &command_line] {
      chosen.run = [&options, name, &command_line] {
        options.experiments = {name};
        options.command_line = command_line;
        return run_lab(options);
      };
    });
    return sub;
  };
  const auto anywhere = [&](CLI::App* sub) {
    CLI::Option* url = sub->add_option("--url", options.url, "Against a Ringmaster that runs, as http://127.0.0.1:5000/home; default: one of the lab's own");
    sub->add_option("--admin", options.settings.admin, "The admin API of that one: what it has counted is compared; `recovery` needs it")->needs(url);
    sub->add_option("--server-field", options.settings.server_field, "The field of an answer that names its server; default: \"Server: X\" in its body");
    sub->add_flag("--i-own-this-target", options.own_target, "It may be on another machine");
  };
  anywhere(experiment("all", "All of them"));
  for (const lab::Experiment& each : lab::experiments()) {
    CLI::App* sub = experiment(std::string(each.name), std::string(each.summary));
    if (each.runs_anywhere) anywhere(sub);
    if (each.name != "functions") continue;
    CLI::Option* request = sub->add_option("--request-function", options.settings.request_function, "Your own H(i), such as \"7*i*i + 3*i + 1\", or xxhash …");
    CLI::Option* virtual_server = sub->add_option("--virtual-function", options.settings.virtual_function, "… and Φ(i, j)");
    request->needs(virtual_server);
    virtual_server->needs(request);
  }
}

void add_lab_commands(CLI::App& app, Chosen& chosen, const std::string& command_line) {
  static LabOptions options;
  static LoadOptions load;
  static std::string before;
  static std::string after;
  CLI::App* command = app.add_subcommand("lab", "Experiments with real requests, and a report with pictures of what came out");
  command->require_subcommand(1);
  command->footer("Example: ringmaster lab all --quick");
  add_lab_experiments(*command, chosen, options, command_line);

  CLI::App* comparing = command->add_subcommand("compare", "Two reports side by side");
  comparing->add_option("before", before, "A report's folder")->required();
  comparing->add_option("after", after, "And another one's")->required();
  comparing->footer("Example: ringmaster lab compare lab-report-1 lab-report-2");
  comparing->callback([&chosen] { chosen.run = [] { return run_compare(before, after); }; });

  CLI::App* loading = command->add_subcommand("load", "The load generator by itself");
  loading->add_option("url", load.url, "Where to, as http://127.0.0.1:5000/home; {i} in it stands for the request's number")->required();
  loading->add_option("--connections,-c", load.plan.connections, "At most so many")->check(CLI::Range(1U, lab::Load::kConnectionsMax))->capture_default_str();
  loading->add_option("--duration,-d", load.seconds, "Seconds; default: 10, unless requests are counted")->check(CLI::Range(0.001, 1e6));
  loading->add_option("--requests,-n", load.plan.requests, "So many in all");
  CLI::Option* each = loading->add_option("--each", load.plan.per_connection, "So many on each connection");
  loading->add_option("--rate,-r", load.plan.rate, "Requests a second, whatever the target does (open loop): latencies count from when they were due")
      ->check(CLI::Range(0.001, 1e7))
      ->excludes(each);
  loading->add_option("--path", load.paths, "Paths, in turns, in place of the URL's; may be repeated");
  loading->add_option("--server-field", load.plan.server_field, "The field of an answer that names its server");
  loading->add_flag("--poisson", load.poisson, "At random times, not evenly");
  loading->add_option("--timeout", load.timeout_s, "Seconds for each request")->check(CLI::Range(0.001, 1e6))->capture_default_str();
  loading->add_flag("--numbered", load.plan.numbered, "Each request carries its number, as X-Request-Id");
  loading->add_flag("--json", load.json, "One line of JSON");
  loading->add_flag("--i-own-this-target", load.own_target, "It may be on another machine");
  loading->footer("Example: ringmaster lab load http://127.0.0.1:5000/home --rate 1000 --poisson --duration 5");
  loading->callback([&chosen] { chosen.run = [] { return run_load(load); }; });
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
      "  ringmaster task submit sleep '{\"seconds\":1}' --wait 5   work, done by one of them\n"
      "Exit codes: 0 done, 1 failed, 2 usage or configuration.");
  Chosen chosen;
  add_server_commands(app, chosen);
  add_control_commands(app, chosen);
  add_task_commands(app, chosen);
  std::string command_line = "ringmaster";
  for (int i = 1; i < argc; ++i) command_line += std::string(" ") + argv[i];
  add_lab_commands(app, chosen, command_line);
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
