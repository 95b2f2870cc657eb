// Replicas as containers, by Docker's own API.
//
//   follow():  ping ─▶ subscribe to events ─▶ list what is there, by our labels ─▶ read events ─▶ (lost) ─▶ again
//   start():   take over what an earlier master left in this slot, or: image ─▶ network ─▶ create ─▶ start ─▶ inspect
//
// A container's end is known by its `die` event. After every reconnection what is there is compared with what should be:
// containers of ours that nobody wants are removed; what has no label of ours is never touched. When a master dies its
// containers go on, and the next one takes them over if they are what the configuration asks for.
// One thread, the master's. The engine does not have Docker's socket, if it has a user of its own (engine_user).
#pragma once

#include <map>
#include <set>

#include "io/turns.h"
#include "supervise/container_spec.h"
#include "supervise/docker_api.h"

namespace ringmaster::supervise {

class DockerRuntime final : public Runtime {
 public:
  DockerRuntime(io::Loop& loop, const config::Config& config, ContainerHost host);

  // Connects to Docker, and again whenever that is lost.
  void begin() { following_.spawn(follow()); }
  io::Async<base::Result<std::unique_ptr<Running>>> start(Launch launch) override;
  std::string trouble() const override { return connected_ ? "" : complaint_; }
  // From now on a Docker that does not answer is not waited for.
  void stopping() { stopping_ = true; }
  // Waits until what has ended is removed. After the fleet has stopped.
  io::Async<void> stop();

 private:
  friend class RunningContainer;
  // One that has been created, or taken over.
  struct Container {
    std::string id;
    std::string folder;  // of its socket, if it has one
    bool out_of_memory = false;
    bool ended = false;
    std::string how;  // it ended
    io::Signal end;
    bool output_complete = false;
    io::Signal output_end;
  };
  using ContainerPtr = std::shared_ptr<Container>;
  struct Found {  // running, as an earlier master left it
    std::string id;
    std::string name;
    std::uint64_t epoch = 0;
  };
  // A start that is under way. It is seen to its end even if nobody waits for it any more: what Docker makes of a request that
  // is broken off nobody knows.
  struct Making {
    bool done = false;
    bool abandoned = false;
    base::Result<std::unique_ptr<Running>> result;
    io::Signal end;
  };
  struct Pull {
    bool done = false;
    std::string failure;
    io::Signal end;
  };
  using Place = std::pair<std::string, std::uint32_t>;  // pool and slot

  io::Async<void> follow();
  io::Async<base::Result<void>> serve();
  io::Async<base::Result<void>> reconcile();
  void judge(const std::string& id, const nlohmann::json& listed);
  void on_event(const nlohmann::json& event);
  void ended(const ContainerPtr& container, std::string how);

  io::Async<bool> until_connected(const Launch& launch);
  io::Async<base::Result<std::unique_ptr<Running>>> take_over(Launch launch, Found found);
  io::Async<void> carry_out(std::shared_ptr<Making> making, Launch launch);
  io::Async<base::Result<std::unique_ptr<Running>>> make(std::shared_ptr<Making> making, Launch launch);
  io::Async<base::Result<std::string>> create(std::shared_ptr<Making> making, const Launch& launch);
  io::Async<base::Result<void>> clear_name(const Launch& launch);
  io::Async<base::Result<void>> have_network(const std::string& network);
  bool is_in(const nlohmann::json& containers) const;
  io::Async<base::Result<void>> have_image(const std::string& image);
  io::Async<void> pull(std::string image, std::shared_ptr<Pull> pull);
  io::Async<base::Result<base::Endpoint>> locate(const Launch& launch, ContainerPtr container, std::uint64_t epoch);
  ContainerPtr track(std::string id, const Launch& launch, std::uint64_t epoch);
  base::Duration patience() const;

  io::Async<void> read_output(ContainerPtr container, bool from_start, std::function<void(std::string_view)> output);
  io::Async<void> terminate(ContainerPtr container, base::Duration grace);
  io::Async<void> kill(ContainerPtr container);
  io::Async<void> discard(ContainerPtr container);
  io::Async<void> remove(std::string id);
  io::Async<void> remove_stray(std::string id, std::string name, std::string folder);
  void clear_folder(const std::string& folder);

  io::Loop& loop_;
  const config::Config& config_;
  ContainerHost host_;
  DockerApi api_;
  std::string ours_;  // the filter for our containers, encoded
  bool connected_ = false;
  io::Signal connected_signal_;
  std::string complaint_;                 // as last logged
  std::map<Place, std::string> waiting_;  // names of those whose start waits for the connection
  std::map<Place, Found> found_;
  std::map<std::string, ContainerPtr> containers_;  // by id; those that have not ended
  std::multiset<std::string> making_;               // names of those that are being created
  std::map<std::string, std::shared_ptr<Pull>> pulls_;
  io::Turns networks_;  // of those that look for a network and make it: Docker lets two of one name come into being
  bool stopping_ = false;
  io::Scope following_;  // cancelled at the end: events, output, pulls
  io::Scope working_;    // seen to its end: starts, signals, removals
};

}  // namespace ringmaster::supervise
