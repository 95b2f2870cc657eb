// One simulated loop's view of the world: System on SimWorld. See system.h for what each call promises.
#pragma once

#include <set>

#include "io/sim_world.h"

namespace ringmaster::io {

// One end of a stream. What is written arrives at the other end later, in order, perhaps in pieces, perhaps never.
class SimStream final : public SimObject {
 public:
  SimStream(SimWorld& the_world, std::string server) : SimObject(the_world), server_(std::move(server)) {}
  static void connect(const std::shared_ptr<SimStream>& a, const std::shared_ptr<SimStream>& b);

  std::uint32_t readiness() const override;
  Transfer read(std::span<char> into) override;
  Transfer write(std::span<const iovec> from) override;
  void shutdown_write() override;
  void reset_on_close() override { reset_on_close_ = true; }
  void last_closed() override;

  void reset();  // broken, as seen from here
  // A connection that is being made: it becomes writable once it is decided, and error() tells.
  void begin_connect() { connecting_ = true; }
  void refuse();
  void connected();
  bool connecting() const { return connecting_; }
  bool closed() const { return broken_; }
  int error() const { return error_; }
  const std::string& server() const { return server_; }

 private:
  static constexpr std::size_t kWindowBytes = 64 * 1024;
  void deliver(const std::string& bytes);
  void deliver_end();
  Time arrival();

  std::string server_;  // the listener's address
  std::weak_ptr<SimStream> peer_;
  std::weak_ptr<SimStream> self_;
  std::string inbox_;
  std::size_t on_the_way_ = 0;  // bytes towards this end
  Time last_arrival_{};
  bool ended_ = false;  // the peer ended its side and that has arrived
  bool shut_ = false;   // our side is ended
  bool broken_ = false;
  bool reset_on_close_ = false;
  bool connecting_ = false;
  int error_ = 0;
};

class SimListener final : public SimObject {
 public:
  SimListener(SimWorld& the_world, Endpoint address, std::size_t most) : SimObject(the_world), at(std::move(address)), backlog_max(most) {}
  std::uint32_t readiness() const override { return backlog.empty() ? 0U : std::uint32_t{kReadable}; }
  void last_closed() override;
  Endpoint at;
  std::size_t backlog_max;
  bool open = true;
  std::deque<std::shared_ptr<SimStream>> backlog;
};

// One end of a message pair.
class SimMessages final : public SimObject {
 public:
  using SimObject::SimObject;
  struct Message {
    std::string bytes;
    std::vector<SimObjectPtr> objects;
  };
  std::uint32_t readiness() const override;
  void last_closed() override;
  std::weak_ptr<SimMessages> peer;
  std::deque<Message> inbox;
  std::size_t on_the_way = 0;
  Time last_arrival{};
  Time no_room_until{};  // for what this end sends, by chance
  static constexpr std::size_t kQueueMax = 64;
  bool is_full() const { return inbox.size() + on_the_way >= kQueueMax; }
  bool peer_closed = false;
  bool closed_here = false;
};

class SimPidfd final : public SimObject {
 public:
  using SimObject::SimObject;
  std::uint32_t readiness() const override { return ended_ ? std::uint32_t{kReadable} : 0U; }
  void end() {
    ended_ = true;
    notify(kReadable);
  }

 private:
  bool ended_ = false;
};

// A log that is appended to.
class SimLog final : public SimObject {
 public:
  SimLog(SimWorld& the_world, std::string where) : SimObject(the_world), path(std::move(where)) {}
  std::string path;
};

class SimMemory final : public SimObject {
 public:
  SimMemory(SimWorld& the_world, std::size_t size) : SimObject(the_world), words(new std::uint64_t[size / 8 + 64]()), bytes(size) {}
  std::shared_ptr<std::uint64_t[]> words;  // over-long, and aligned below for cells
  std::size_t bytes;
};

class SimSystem final : public System {
 public:
  explicit SimSystem(SimProcess& process) : process_(process), world_(process.world) {}

  Time now() override { return world_.now(); }
  base::WallTime wall_now() override {
    return base::WallTime(std::chrono::seconds(1'000'000'000) +
                          std::chrono::duration_cast<base::WallTime::duration>(world_.now().time_since_epoch() + world_.wall_offset));
  }
  std::uint64_t random_seed() override { return world_.random().next(); }

  Result<Handle> listen(const Endpoint& at, const ListenOptions& options) override;
  Endpoint local_endpoint(int fd) override;
  Transfer accept(int listener, Endpoint& peer) override;
  Transfer connect(const Endpoint& to) override;
  void bear_pauses(int, bool) override {}
  int connect_error(int fd) override;
  Transfer read(int fd, std::span<char> into) override;
  Transfer write(int fd, std::span<const iovec> from) override;
  std::size_t unacknowledged(int) override { return 0; }
  std::optional<uid_t> peer_user(int) override { return {}; }
  bool has_unread(int) override { return false; }
  void shutdown_write(int fd) override;
  void reset_on_close(int fd) override;
  void close(int fd) override {
    process_.close(fd);
    forget(fd);  // a ghost's descriptors have been closed before
  }

  void watch(int fd, void* tag, Trigger trigger, bool writing) override;
  void rewatch(int fd, void* tag, bool writing) override;
  void unwatch(int fd) override;
  std::size_t poll(std::span<Event> events, Duration wait_max) override;
  void wake() override;
  bool any_order() override { return world_.faults().any_order; }

  Result<std::pair<Handle, Handle>> message_pair() override;
  Handle adopt(int fd) override { return {*this, fd}; }
  Transfer send_message(int fd, std::string_view bytes, std::span<const int> descriptors) override;
  Transfer receive_message(int fd, std::span<char> into, std::vector<Handle>& descriptors) override;

  Result<Handle> create_memory(std::size_t bytes) override;
  Result<Mapping> map(int fd) override;

  Result<Child> spawn(const SpawnRequest& request) override;
  void signal(const Child& child, int number) override;
  std::optional<ExitStatus> reap(const Child& child) override;
  bool is_traced(pid_t) override { return false; }
  std::string describe_threads(pid_t) override { return {}; }
  std::string start_time(pid_t pid) override;
  void adopt_orphans() override {}
  void reap_orphans() override {}
  void kill_marked(const std::string&) override {}
  void kill_session(pid_t pid) override;
  std::string boot_id() override { return "simulated-" + std::to_string(world_.boots()); }
  std::uint64_t raise_descriptor_limit() override { return 1U << 20; }
  void clear_directory(const std::string& path) override;
  Result<Handle> signals(std::span<const int>) override { return open(std::make_shared<SimObject>(world_)); }
  std::string own_executable() override { return "ringmaster"; }

  Result<std::string> read_file(const std::string& path) override;
  Result<void> replace_file(const std::string& path, std::string_view bytes, bool durable) override;
  Result<void> make_directory(const std::string&, unsigned, bool) override { return {}; }
  Result<void> give_directory(const std::string&, const User&, unsigned) override { return {}; }
  Result<gid_t> find_group(const std::string&) override { return gid_t{0}; }
  User own_user() override { return {}; }
  Result<User> find_user(const std::string&) override { return User{}; }
  void remove_file(const std::string& path) override;
  Result<Handle> open_append(const std::string& path) override;
  bool append(int fd, std::string_view bytes) override;
  Result<Handle> lock_file(const std::string& path) override;

  void run_in_background(std::function<void()> work) override;
  void resolve(std::string host, std::uint16_t port, std::function<void(Result<std::vector<Endpoint>>)> done) override;
  std::unique_ptr<LoopThread> start_loop() override;

  // For the world.
  void edge(int fd, std::uint32_t readiness);
  void forget(int fd);
  void become_ghost();
  SimProcess& process() { return process_; }
  Time stalled_until() const { return stalled_until_; }  // its loop's thread is not run until then

 private:
  Handle open(SimObjectPtr object) { return {*this, process_.open(std::move(object))}; }
  bool ghost() const { return process_.ghost; }
  // A system call that has an effect, or would have had: this is where processes are killed in the midst of their work.
  void call();
  bool out_of_descriptors() const { return world_.now() < process_.no_descriptors_until; }

  struct Watched {
    void* tag;
    Trigger trigger;
    std::uint32_t pending;  // edges not yet polled
    bool writing;           // readiness to write is told
    Time told;              // when a ghost was last told that it has ended
  };
  SimProcess& process_;
  SimWorld& world_;
  std::map<int, Watched> watched_;
  std::vector<int> levels_;  // those whose state is asked for
  std::set<int> hot_;        // those that something has been told of
  Time stalled_until_{};
};

}  // namespace ringmaster::io
