#include "io/sim_system.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/check.h"

namespace ringmaster::io {

using base::fail;

// --- streams ---

void SimStream::connect(const std::shared_ptr<SimStream>& a, const std::shared_ptr<SimStream>& b) {
  a->peer_ = b;
  b->peer_ = a;
  a->self_ = a;
  b->self_ = b;
  SimWorld& world = a->world_;
  const SimFaults& faults = world.faults();
  const auto moment = [&] {
    return world.now() + Duration(static_cast<std::int64_t>(world.random().unit() * static_cast<double>(faults.fault_within.count())));
  };
  if (world.random().unit() < faults.reset) {
    world.at(moment(), [&world, left = std::weak_ptr(a), right = std::weak_ptr(b), to = a->server_] {
      const auto x = left.lock();
      const auto y = right.lock();
      if (!x || !y) return;
      if (world.on_fault) world.on_fault(to);
      x->reset();
      y->reset();
    });
  }
  if (world.random().unit() < faults.half_close) {
    world.at(moment(), [&world, one = std::weak_ptr(world.random().below(2) == 0 ? a : b), to = a->server_] {
      const auto stream = one.lock();
      if (!stream) return;
      if (world.on_fault) world.on_fault(to);
      stream->shutdown_write();
    });
  }
}

std::uint32_t SimStream::readiness() const {
  if (connecting_) return 0;
  std::uint32_t bits = 0;
  if (!inbox_.empty() || ended_ || broken_) bits |= kReadable;
  if (ended_) bits |= kHangup;
  if (broken_) bits |= kBroken;
  const auto peer = peer_.lock();
  if (broken_ || (peer && peer->inbox_.size() + peer->on_the_way_ < kWindowBytes)) bits |= kWritable;
  return bits;
}

Transfer SimStream::read(std::span<char> into) {
  if (broken_) return {-1, ECONNRESET};
  if (inbox_.empty()) return ended_ ? Transfer{0, 0} : Transfer{-1, EAGAIN};
  const std::size_t count = std::min(into.size(), inbox_.size());
  std::memcpy(into.data(), inbox_.data(), count);
  const bool was_full = inbox_.size() + on_the_way_ >= kWindowBytes;
  inbox_.erase(0, count);
  if (was_full) {
    if (const auto peer = peer_.lock()) peer->notify(kWritable);
  }
  return {static_cast<ssize_t>(count), 0};
}

Time SimStream::arrival() { return last_arrival_ = std::max(last_arrival_ + Duration(1), world_.now() + world_.delay()); }

Transfer SimStream::write(std::span<const iovec> from) {
  const auto peer = peer_.lock();
  if (broken_ || shut_ || !peer) return {-1, EPIPE};
  std::size_t room = kWindowBytes - std::min(kWindowBytes, peer->inbox_.size() + peer->on_the_way_);
  if (room == 0) return {-1, EAGAIN};
  std::string bytes;
  for (const iovec& piece : from) bytes.append(static_cast<const char*>(piece.iov_base), std::min(piece.iov_len, room - std::min(room, bytes.size())));
  const bool fragmented = world_.random().unit() < world_.faults().fragment && bytes.size() > 1;
  const std::size_t cut = fragmented ? 1 + world_.random().below(static_cast<std::uint32_t>(bytes.size() - 1)) : bytes.size();
  for (const auto& part : {bytes.substr(0, cut), bytes.substr(cut)}) {
    if (part.empty()) continue;
    peer->on_the_way_ += part.size();
    world_.at(peer->arrival(), [to = std::weak_ptr(peer), part] {
      if (const auto end = to.lock()) end->deliver(part);
    });
  }
  return {static_cast<ssize_t>(bytes.size()), 0};
}

void SimStream::deliver(const std::string& bytes) {
  on_the_way_ -= bytes.size();
  if (broken_) return;
  world_.trace(3, bytes.size());
  inbox_ += bytes;
  notify(kReadable);
}

void SimStream::deliver_end() {
  if (broken_) return;
  world_.trace(4, 0);
  ended_ = true;
  notify(kReadable | kHangup);
}

void SimStream::shutdown_write() {
  if (std::exchange(shut_, true)) return;
  const auto peer = peer_.lock();
  if (!peer) return;
  world_.at(peer->arrival(), [to = std::weak_ptr(peer)] {
    if (const auto end = to.lock()) end->deliver_end();
  });
}

void SimStream::refuse() {
  connecting_ = false;
  error_ = ECONNREFUSED;
  reset();
}

void SimStream::connected() {
  connecting_ = false;
  notify(kWritable);
}

void SimStream::reset() {
  if (std::exchange(broken_, true)) return;
  world_.trace(5, 0);
  inbox_.clear();
  notify(kReadable | kWritable | kHangup | kBroken);
}

// As Linux has it: with bytes unread the peer sees a reset, else an end, after what is still on its way.
void SimStream::last_closed() {
  const auto peer = peer_.lock();
  if (!peer) broken_ = true;
  if (!peer || broken_) return;
  if (reset_on_close_ || !inbox_.empty() || on_the_way_ > 0) {
    world_.at(peer->arrival(), [to = std::weak_ptr(peer)] {
      if (const auto end = to.lock()) end->reset();
    });
  } else if (!shut_) {
    shutdown_write();
  }
  broken_ = true;
}

void SimListener::last_closed() {
  open = false;
  for (const auto& waiting : backlog) {
    waiting->reset_on_close();
    waiting->last_closed();
  }
  backlog.clear();
}

std::uint32_t SimMessages::readiness() const {
  std::uint32_t bits = 0;
  const auto other = peer.lock();
  if (world_.now() >= no_room_until && (!other || !other->is_full())) bits |= kWritable;
  if (!inbox.empty() || peer_closed) bits |= kReadable;
  if (peer_closed) bits |= kHangup;
  return bits;
}

void SimMessages::last_closed() {
  closed_here = true;
  for (const Message& message : std::exchange(inbox, {})) {  // nobody will take what they bring
    for (const auto& object : message.objects) object->closed();
  }
  if (const auto other = peer.lock()) {
    other->peer_closed = true;
    other->notify(kReadable | kHangup);
  }
}

// --- sockets ---

Result<Handle> SimSystem::listen(const Endpoint& at, const ListenOptions& options) {
  call();
  if (ghost()) return fail(Code::internal);
  if (out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, "listen"));
  Endpoint address = at;
  if (address.family != Endpoint::Family::unix_path && address.port == 0) address.port = world_.next_port++;
  auto& group = world_.listeners[base::to_string(address)];
  std::erase_if(group, [](const auto& weak) {
    const auto listener = weak.lock();
    return !listener || !listener->open;
  });
  if (!group.empty() && !options.reuse_port) return fail(Code::exists, "listen on " + base::to_string(address) + ": Address already in use");
  const auto listener = std::make_shared<SimListener>(world_, address, static_cast<std::size_t>(options.backlog));
  group.push_back(listener);
  return open(listener);
}

Endpoint SimSystem::local_endpoint(int fd) {
  const auto* listener = dynamic_cast<SimListener*>(process_.find(fd).get());
  return listener == nullptr ? Endpoint{} : listener->at;
}

Transfer SimSystem::accept(int fd, Endpoint& peer) {
  call();
  auto* listener = dynamic_cast<SimListener*>(process_.find(fd).get());
  if (!ghost() && out_of_descriptors() && listener != nullptr && !listener->backlog.empty()) return {-1, EMFILE};
  if (ghost() || listener == nullptr || listener->backlog.empty()) return {-1, EAGAIN};
  const auto stream = listener->backlog.front();
  listener->backlog.pop_front();
  peer = Endpoint::loopback(1);
  return {process_.open(stream), 0};
}

// Somebody of the group that listens there, by chance; null: nobody.
static std::shared_ptr<SimListener> find_listener(SimWorld& world, const std::string& address) {
  std::vector<std::shared_ptr<SimListener>> open_ones;
  for (const auto& weak : world.listeners[address]) {
    if (auto listener = weak.lock(); listener && listener->open) open_ones.push_back(std::move(listener));
  }
  return open_ones.empty() ? nullptr : open_ones[world.random().below(static_cast<std::uint32_t>(open_ones.size()))];
}

static void join(SimWorld& world, SimListener& listener, const std::shared_ptr<SimStream>& here) {
  const auto there = std::make_shared<SimStream>(world, here->server());
  SimStream::connect(here, there);
  listener.backlog.push_back(there);
  world.trace(6, listener.backlog.size());
}

Transfer SimSystem::connect(const Endpoint& to) {
  call();
  if (ghost()) return {-1, ECONNREFUSED};
  if (out_of_descriptors()) return {-1, EMFILE};
  const std::string address = base::to_string(to);
  const auto here = std::make_shared<SimStream>(world_, address);
  if (to.family == Endpoint::Family::unix_path) {
    const auto listener = find_listener(world_, address);
    if (!listener) return {-1, ECONNREFUSED};
    if (listener->backlog.size() >= listener->backlog_max) return {-1, EAGAIN};
    join(world_, *listener, here);
    return {process_.open(here), 0};
  }
  // Beyond a Unix socket it takes a while, and may come to nothing.
  here->begin_connect();
  const int fd = process_.open(here);
  const SimFaults& faults = world_.faults();
  const double fate = world_.random().unit();
  const bool silent = fate < faults.connect_silent;
  const bool slow = !silent && fate < faults.connect_silent + faults.connect_slow;
  const bool refused = !silent && !slow && fate < faults.connect_silent + faults.connect_slow + faults.connect_refused;
  world_.connects_spoilt += silent || slow || refused ? 1 : 0;
  if (silent) return {fd, 0};
  Duration after = world_.delay();
  if (slow) after += Duration(static_cast<std::int64_t>(world_.random().unit() * static_cast<double>(faults.connect_slow_max.count())));
  world_.at(world_.now() + after, [this_world = &world_, weak = std::weak_ptr(here), refused] {
    const auto stream = weak.lock();
    if (!stream || stream->closed()) return;
    const auto listener = refused ? nullptr : find_listener(*this_world, stream->server());
    if (!listener) {
      stream->refuse();
    } else if (listener->backlog.size() < listener->backlog_max) {  // else nobody answers
      join(*this_world, *listener, stream);
      stream->connected();
    }
  });
  return {fd, 0};
}

int SimSystem::connect_error(int fd) {
  const auto* stream = dynamic_cast<SimStream*>(process_.find(fd).get());
  return ghost() || stream == nullptr ? ECONNREFUSED : stream->error();
}

// --- what goes wrong ---

void SimSystem::call() {
  if (process_.dies_now()) world_.kill(process_, {0, SIGKILL});
}

void SimSystem::wake() {
  const SimFaults& faults = world_.faults();
  if (ghost() || faults.stall == 0 || world_.random().unit() >= faults.stall) return;
  stalled_until_ = world_.now() + Duration(static_cast<std::int64_t>(world_.random().unit() * static_cast<double>(faults.stall_max.count())));
}

void SimSystem::run_in_background(std::function<void()> work) {
  const Duration most = world_.faults().background_max;
  if (most == Duration::zero()) {
    work();
  } else {
    world_.at(world_.now() + Duration(static_cast<std::int64_t>(world_.random().unit() * static_cast<double>(most.count()))), std::move(work));
  }
}

Transfer SimSystem::read(int fd, std::span<char> into) {
  const auto object = process_.find(fd);
  return object ? object->read(into) : Transfer{-1, ECONNRESET};
}

Transfer SimSystem::write(int fd, std::span<const iovec> from) {
  call();
  const auto object = process_.find(fd);
  return object ? object->write(from) : Transfer{-1, EPIPE};
}

void SimSystem::shutdown_write(int fd) {
  if (const auto object = process_.find(fd)) object->shutdown_write();
}

void SimSystem::reset_on_close(int fd) {
  if (const auto object = process_.find(fd)) object->reset_on_close();
}

// --- readiness ---

void SimSystem::watch(int fd, void* tag, Trigger trigger, bool writing) {
  const auto object = process_.find(fd);
  watched_[fd] = {tag, trigger, object ? object->readiness() : std::uint32_t{kReadable | kWritable | kHangup | kBroken}, writing, Time::min()};
  if (trigger == Trigger::level) levels_.push_back(fd);
  hot_.insert(fd);
  if (object) object->attach(*this, fd);
}

void SimSystem::rewatch(int fd, void* tag, bool writing) {
  Watched& watched = watched_[fd];
  watched.tag = tag;
  watched.writing = writing;
  hot_.insert(fd);
  if (const auto object = process_.find(fd)) watched.pending |= object->readiness();
}

void SimSystem::unwatch(int fd) {
  if (const auto object = process_.find(fd)) object->detach(*this, fd);
  forget(fd);
}

void SimSystem::forget(int fd) {
  watched_.erase(fd);
  hot_.erase(fd);
  std::erase(levels_, fd);
}

void SimSystem::edge(int fd, std::uint32_t readiness) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return;
  found->second.pending |= readiness;
  hot_.insert(fd);
}

// Everything it waits for breaks.
void SimSystem::become_ghost() {
  for (auto& [fd, watched] : watched_) {
    watched.pending = kReadable | kWritable | kHangup | kBroken;
    hot_.insert(fd);
  }
}

std::size_t SimSystem::poll(std::span<Event> events, Duration) {
  std::size_t count = 0;
  for (auto next = hot_.begin(); next != hot_.end() && count < events.size(); next = hot_.erase(next)) {
    Watched& watched = watched_.find(*next)->second;
    std::uint32_t bits = std::exchange(watched.pending, 0);
    if (!watched.writing) bits &= ~std::uint32_t{kWritable};
    if (watched.trigger == Trigger::edge && bits != 0) events[count++] = {watched.tag, bits};
  }
  for (const int fd : levels_) {
    if (count == events.size()) break;
    Watched& watched = watched_.find(fd)->second;
    const auto object = process_.find(fd);
    std::uint32_t bits = object ? object->readiness() & std::uint32_t{kReadable} : 0U;
    // A ghost hears at every moment anew that all has broken; reap() then tells it that its children have ended.
    if (ghost()) bits = std::exchange(watched.told, now()) == now() ? 0U : std::uint32_t{kReadable};
    if (bits != 0) events[count++] = {watched.tag, bits};
  }
  return count;
}

// --- messages and memory ---

Result<std::pair<Handle, Handle>> SimSystem::message_pair() {
  call();
  if (ghost()) return fail(Code::internal);
  if (out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, "socketpair"));
  const auto a = std::make_shared<SimMessages>(world_);
  const auto b = std::make_shared<SimMessages>(world_);
  a->peer = b;
  b->peer = a;
  Handle first = open(a);
  Handle second = open(b);
  return std::pair{std::move(first), std::move(second)};
}

Transfer SimSystem::send_message(int fd, std::string_view bytes, std::span<const int> descriptors) {
  call();
  const auto end = std::dynamic_pointer_cast<SimMessages>(process_.find(fd));
  const auto peer = end ? end->peer.lock() : nullptr;
  if (!peer || end->peer_closed) return {-1, EPIPE};
  if (peer->is_full() || world_.now() < end->no_room_until) return {-1, EAGAIN};
  const SimFaults& faults = world_.faults();
  if (descriptors.empty() && faults.link_full > 0 && world_.random().unit() < faults.link_full) {
    ++world_.messages_refused;
    end->no_room_until = world_.now() + world_.delay();
    world_.at(end->no_room_until, [weak = std::weak_ptr(end)] {
      if (const auto sender = weak.lock()) sender->notify(kWritable);
    });
    return {-1, EAGAIN};
  }
  SimMessages::Message message{std::string(bytes), {}};
  for (const int descriptor : descriptors) {
    message.objects.push_back(process_.find(descriptor));
    message.objects.back()->opened();  // held by the message
  }
  ++peer->on_the_way;
  // A local socket: at once, but not before whoever sends has done with its turn; or the receiver is slow to look.
  const Duration delay(static_cast<std::int64_t>(world_.random().unit() * static_cast<double>(faults.link_delay_max.count())));
  peer->last_arrival = std::max(peer->last_arrival, world_.now() + delay);
  world_.at(peer->last_arrival, [this_world = &world_, to = std::weak_ptr(peer), message] {
    const auto receiver = to.lock();
    if (!receiver || receiver->closed_here) {
      for (const auto& object : message.objects) object->closed();
      return;
    }
    this_world->trace(7, message.bytes.size());
    --receiver->on_the_way;
    receiver->inbox.push_back(message);
    receiver->notify(kReadable);
  });
  return {static_cast<ssize_t>(bytes.size()), 0};
}

Transfer SimSystem::receive_message(int fd, std::span<char> into, std::vector<Handle>& descriptors) {
  const auto end = std::dynamic_pointer_cast<SimMessages>(process_.find(fd));
  if (!end) return {0, 0};
  if (end->inbox.empty()) return end->peer_closed ? Transfer{0, 0} : Transfer{-1, EAGAIN};
  const SimMessages::Message message = std::move(end->inbox.front());
  end->inbox.pop_front();
  const std::size_t count = std::min(into.size(), message.bytes.size());
  std::memcpy(into.data(), message.bytes.data(), count);
  for (const auto& object : message.objects) {
    descriptors.push_back(open(object));
    object->closed();
  }
  if (const auto peer = end->peer.lock()) peer->notify(kWritable);
  return {static_cast<ssize_t>(count), 0};
}

Result<Handle> SimSystem::create_memory(std::size_t bytes) {
  if (ghost()) return fail(Code::internal);
  if (out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, "memfd_create"));
  return open(std::make_shared<SimMemory>(world_, bytes));
}

Result<Mapping> SimSystem::map(int fd) {
  const auto memory = std::dynamic_pointer_cast<SimMemory>(process_.find(fd));
  if (!memory) return fail(Code::internal, "not shared memory");
  auto address = reinterpret_cast<std::uintptr_t>(memory->words.get());
  address = (address + 63) / 64 * 64;
  return Mapping{std::shared_ptr<void>(memory->words, reinterpret_cast<void*>(address)), memory->bytes};  // NOLINT: alignment
}

// --- processes ---

Result<Child> SimSystem::spawn(const SpawnRequest& request) {
  call();
  if (ghost()) return fail(Code::internal);
  if (out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, "spawn"));
  const auto process = world_.spawn(&process_, request);
  if (!process) return std::unexpected(process.error());
  return Child{(*process)->pid, open((*process)->pidfd), {}};
}

void SimSystem::signal(const Child& child, int number) {
  SimProcess* process = world_.find(child.pid);
  if (!ghost() && process != nullptr) world_.signal(*process, number);
}

std::optional<ExitStatus> SimSystem::reap(const Child& child) {
  if (ghost()) return ExitStatus{0, SIGKILL};
  const SimProcess* process = world_.find(child.pid);
  if (process == nullptr) return ExitStatus{0, SIGKILL};
  if (!process->ghost) return std::nullopt;
  return process->status;
}

std::string SimSystem::start_time(pid_t pid) {
  const SimProcess* process = world_.find(pid);
  return process != nullptr && !process->ghost ? std::to_string(pid) : "";
}

void SimSystem::clear_directory(const std::string& path) {
  if (!ghost()) std::erase_if(world_.files, [&](const auto& file) { return file.first.starts_with(path + "/"); });
}

void SimSystem::kill_session(pid_t pid) {
  SimProcess* process = world_.find(pid);
  if (process != nullptr) world_.signal(*process, SIGKILL);
}

// --- files and the rest ---

Result<std::string> SimSystem::read_file(const std::string& path) {
  if (!ghost() && out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, path));
  const auto found = world_.files.find(path);
  if (found == world_.files.end()) return fail(Code::not_found, path + ": no such file");
  return found->second;
}

Result<void> SimSystem::replace_file(const std::string& path, std::string_view bytes, bool durable) {
  call();
  if (ghost()) return fail(Code::internal);
  if (out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, path));
  if (world_.now() < world_.disk_full_until) return fail(Code::disk_full, path + ": no space left on device");
  world_.files[path] = bytes;
  if (durable) world_.durable_files[path] = bytes;
  call();
  return ghost() ? Result<void>(fail(Code::internal)) : Result<void>{};
}

void SimSystem::remove_file(const std::string& path) {
  if (ghost()) return;
  world_.files.erase(path);
  world_.durable_files.erase(path);
}

Result<Handle> SimSystem::open_append(const std::string& path) {
  if (ghost()) return fail(Code::internal);
  if (out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, path));
  return open(std::make_shared<SimLog>(world_, path));
}

bool SimSystem::append(int fd, std::string_view bytes) {
  const auto* log = dynamic_cast<SimLog*>(process_.find(fd).get());
  if (ghost() || log == nullptr) return false;
  world_.logs[log->path] += bytes;
  return true;
}

Result<Handle> SimSystem::lock_file(const std::string& path) {
  if (ghost()) return fail(Code::internal);
  if (out_of_descriptors()) return std::unexpected(base::from_errno(EMFILE, path));
  if (!world_.locks[path].expired()) return fail(Code::exists, path + " is locked by another process");
  const auto lock = std::make_shared<SimObject>(world_);
  world_.locks[path] = lock;
  return open(lock);
}

void SimSystem::resolve(std::string host, std::uint16_t port, std::function<void(Result<std::vector<Endpoint>>)> done) {
  const auto endpoint = Endpoint::parse(host + ":" + std::to_string(port));
  done(endpoint ? Result<std::vector<Endpoint>>(std::vector{*endpoint}) : fail(Code::unreachable, "cannot resolve '" + host + "'"));
}

namespace {

class SimLoopThread final : public LoopThread {
 public:
  explicit SimLoopThread(SimProcess& process) : process_(process), loop_(process.new_system()) { process.loops.push_back(&loop_); }
  ~SimLoopThread() override {
    loop_.root().cancel();
    while (!loop_.root().empty()) loop_.turn(Duration::zero());
    std::erase(process_.loops, &loop_);
  }
  Loop& loop() override { return loop_; }

 private:
  SimProcess& process_;
  Loop loop_;
};

}  // namespace

std::unique_ptr<LoopThread> SimSystem::start_loop() { return std::make_unique<SimLoopThread>(process_); }

}  // namespace ringmaster::io
