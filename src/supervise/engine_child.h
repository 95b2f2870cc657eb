// The engine as the master sees it: a child process that serves, watched and started again, with the link to it.
//
// Everything that must outlive an engine stays here: the listeners, the configuration, the counters of its generation.
// When it dies its replacement is started at once (a crash loop backs off like a replica's) and gets the same listeners;
// connections that came meanwhile wait in their backlogs.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "io/process.h"
#include "link/channel.h"
#include "supervise/fleet.h"

namespace ringmaster::supervise {

class EngineChild {
 public:
  struct Listening {
    std::string mark;  // of the engine's process, by which the next master finds it should it outlive this one
    std::string admin_token;
    std::string admin_read_token;
    std::vector<int> descriptors;  // admin and its Unix socket, then for each worker one per configured listener
    std::uint32_t workers = 1;
    std::uint32_t per_worker = 0;
    std::optional<io::User> run_as;  // the engine's user; nothing: ours
  };

  // `stop_wanted` is called when the API asks for it.
  EngineChild(io::Loop& loop, const config::Config& config, Listening listening, std::function<void()> stop_wanted);

  // What the fleet needs of an engine.
  Fleet::Engine for_fleet();
  void attach(Fleet& fleet) { fleet_ = &fleet; }

  // Keeps an engine running until stop().
  io::Async<void> run();

  // Lets the engine finish its requests (at most `grace`) and ends it.
  io::Async<void> stop(base::Duration grace);

 private:
  struct Generation;  // one engine's life
  io::Async<void> serve(Generation& engine);
  io::Async<void> listen_to(Generation& engine);
  io::Async<void> watch(Generation& engine);
  io::Async<void> execute(std::shared_ptr<link::Channel> channel, link::Command command);
  io::Async<link::Outcome> carry_out(const link::Command& command);
  io::Async<link::Outcome> carry_out_once(const link::Command& command);
  base::Result<std::unique_ptr<Generation>> start();
  base::Result<io::Handle> config_memory();
  void send_snapshot();
  void fill_reserve();

  io::Loop& loop_;
  const config::Config& config_;
  Listening listening_;
  std::function<void()> stop_wanted_;
  std::string own_executable_;
  Fleet* fleet_ = nullptr;
  // Descriptors that are given back just before an engine is started: replicas may have used up all others.
  std::vector<io::Handle> reserve_;
  std::uint64_t number_ = 0;
  Generation* current_ = nullptr;
  bool stopping_ = false;
  // Changes that were asked for with a key: one that is asked for again, since its answer was lost, has been made already.
  struct Keyed {
    link::Command command;
    std::optional<link::Outcome> outcome;
    io::Signal ended;
  };
  static constexpr std::size_t kKeysMax = 1000;
  std::map<std::string, std::shared_ptr<Keyed>> keyed_;
  std::deque<std::string> keys_;  // of keyed_, the oldest first
  io::Signal ended_;
  io::Signal stop_begun_;
  io::Scope commands_;
};

}  // namespace ringmaster::supervise
