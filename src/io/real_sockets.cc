// RealSystem's sockets, messages and readiness.
#include <fcntl.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>
#include <thread>

#include "base/check.h"
#include "io/real_system.h"

namespace ringmaster::io {

using base::from_errno;

namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Address to_address(const Endpoint& endpoint) {
  Address address;
  if (endpoint.family == Endpoint::Family::unix_path) {
    auto* un = reinterpret_cast<sockaddr_un*>(&address.storage);
    un->sun_family = AF_UNIX;
    CHECK(endpoint.path.size() <= base::kUnixPathBytesMax);
    std::ranges::copy(endpoint.path, un->sun_path);
    address.bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + endpoint.path.size() + 1);
  } else if (endpoint.family == Endpoint::Family::v6) {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(endpoint.port);
    std::memcpy(&in6->sin6_addr, endpoint.address.data(), 16);
    address.bytes = sizeof(sockaddr_in6);
  } else {
    auto* in4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    in4->sin_family = AF_INET;
    in4->sin_port = htons(endpoint.port);
    std::memcpy(&in4->sin_addr, endpoint.address.data(), 4);
    address.bytes = sizeof(sockaddr_in);
  }
  return address;
}

Endpoint from_address(const sockaddr_storage& storage) {
  Endpoint endpoint;
  if (storage.ss_family == AF_INET) {
    const auto& in4 = reinterpret_cast<const sockaddr_in&>(storage);
    endpoint.family = Endpoint::Family::v4;
    endpoint.port = ntohs(in4.sin_port);
    std::memcpy(endpoint.address.data(), &in4.sin_addr, 4);
  } else if (storage.ss_family == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(storage);
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr);  // a client of a dual-stack listener
    endpoint.family = mapped ? Endpoint::Family::v4 : Endpoint::Family::v6;
    endpoint.port = ntohs(in6.sin6_port);
    std::memcpy(endpoint.address.data(), in6.sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
  } else if (storage.ss_family == AF_UNIX) {
    endpoint.family = Endpoint::Family::unix_path;
    endpoint.path = reinterpret_cast<const sockaddr_un&>(storage).sun_path;
  }
  return endpoint;
}

int open_socket(const Endpoint& endpoint) {
  static constexpr int kFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  switch (endpoint.family) {
    case Endpoint::Family::unix_path: return ::socket(AF_UNIX, kFlags, 0);
    case Endpoint::Family::v6: return ::socket(AF_INET6, kFlags, 0);
    default: return ::socket(AF_INET, kFlags, 0);
  }
}

void set_option(int fd, int level, int option, int value) { ::setsockopt(fd, level, option, &value, sizeof value); }

Transfer outcome(ssize_t count) { return {count, count < 0 ? errno : 0}; }

// Binds without SO_REUSEPORT and lets go: two groups on one address would share its connections silently.
int probe_bind(const Endpoint& at, bool dual_stack) {
  const int fd = open_socket(at);
  if (fd < 0) return errno;
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (at.family == Endpoint::Family::v6) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? 0 : 1);
  Address address = to_address(at);
  const int error = ::bind(fd, address.get(), address.bytes) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

// A socket that nobody listens on is a leftover and goes; a live one, or another kind of file, stays.
int clear_path(const Endpoint& at) {
  struct stat status{};
  if (::lstat(at.path.c_str(), &status) != 0) return errno == ENOENT ? 0 : errno;
  if (!S_ISSOCK(status.st_mode)) return EEXIST;
  const int fd = open_socket(at);
  Address address = to_address(at);
  const bool alive = ::connect(fd, address.get(), address.bytes) == 0 || errno == EAGAIN;
  ::close(fd);
  if (alive) return EADDRINUSE;
  return ::unlink(at.path.c_str()) == 0 ? 0 : errno;
}

}  // namespace

Result<Handle> RealSystem::listen(const Endpoint& at, const ListenOptions& options) {
  const std::string what = "listen on " + base::to_string(at);
  const bool is_unix = at.family == Endpoint::Family::unix_path;
  if (!is_unix && at.port != 0 && !options.reuse_port) {
    if (const int error = probe_bind(at, options.dual_stack); error != 0) return std::unexpected(from_errno(error, what));
  }
  if (is_unix) {
    if (const int error = clear_path(at); error != 0) return std::unexpected(from_errno(error, what));
  }
  Handle handle(*this, open_socket(at));
  if (!handle) return std::unexpected(from_errno(errno, what));
  if (!is_unix) {
    set_option(handle.fd(), SOL_SOCKET, SO_REUSEADDR, 1);
    set_option(handle.fd(), SOL_SOCKET, SO_REUSEPORT, 1);
  }
  if (at.family == Endpoint::Family::v6) set_option(handle.fd(), IPPROTO_IPV6, IPV6_V6ONLY, options.dual_stack ? 0 : 1);
  if (is_unix && options.unix_mode != 0) ::fchmod(handle.fd(), options.unix_mode);  // before bind(2), which takes it over for the file
  Address address = to_address(at);
  if (::bind(handle.fd(), address.get(), address.bytes) != 0) return std::unexpected(from_errno(errno, what));
  if (::listen(handle.fd(), options.backlog) != 0) return std::unexpected(from_errno(errno, what));
  return handle;
}

Endpoint RealSystem::local_endpoint(int fd) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &bytes);
  return from_address(storage);
}

Transfer RealSystem::accept(int listener, Endpoint& peer) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&storage), &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return {-1, errno};
  peer = from_address(storage);
  if (peer.family != Endpoint::Family::unix_path) set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  return {fd, 0};
}

// A cable that is cut, or a machine that is gone, says nothing: without an answer to data, or to a probe of an idle
// connection, for two seconds the kernel gives it up. Within this machine that can't happen.
static constexpr int kSilenceMs = 2000;

static void notice_silence(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kSilenceMs);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
}

Transfer RealSystem::connect(const Endpoint& to) {
  const int fd = open_socket(to);
  if (fd < 0) return {-1, errno};
  if (to.family != Endpoint::Family::unix_path) set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (!to.is_loopback()) notice_silence(fd);
  int itself = -1;  // the file at the path, not what it points to
  Address address = to_address(to);
  if (to.family == Endpoint::Family::unix_path && links_ == Links::refuse) {
    itself = ::open(to.path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (itself < 0) {  // without knowing what it is, it is not connected to
      const int error = errno;
      ::close(fd);
      return {-1, error};
    }
    address = to_address(Endpoint::unix_socket("/proc/self/fd/" + std::to_string(itself)));
  }
  const bool begun = ::connect(fd, address.get(), address.bytes) == 0 || errno == EINPROGRESS;
  int error = errno;
  struct stat found{};
  if (!begun && itself >= 0 && ::fstat(itself, &found) == 0 && S_ISLNK(found.st_mode)) error = ELOOP;  // says what the refusal is about
  if (itself >= 0) ::close(itself);
  if (begun) return {fd, 0};
  ::close(fd);
  return {-1, error};
}

void RealSystem::bear_pauses(int fd, bool bear) { set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, bear ? 0 : kSilenceMs); }

int RealSystem::connect_error(int fd) {
  int error = 0;
  socklen_t bytes = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) == 0 ? error : errno;
}

Transfer RealSystem::read(int fd, std::span<char> into) {
  if (fd == signal_fd_) return read_signal(into);
  // recv() and send() are shorter ways through the kernel than read() and sendmsg().
  const Transfer got = outcome(::recv(fd, into.data(), into.size(), 0));
  if (got.count < 0 && got.error == ENOTSOCK) return outcome(::read(fd, into.data(), into.size()));  // a pipe
  return got;
}

Transfer RealSystem::write(int fd, std::span<const iovec> from) {
  if (from.size() == 1) return outcome(::send(fd, from[0].iov_base, from[0].iov_len, MSG_NOSIGNAL));
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(from.data());  // NOLINT: sendmsg does not write there
  message.msg_iovlen = from.size();
  return outcome(::sendmsg(fd, &message, MSG_NOSIGNAL));
}

std::size_t RealSystem::unacknowledged(int fd) {
  int bytes = 0;
  return ::ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

std::optional<uid_t> RealSystem::peer_user(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  const bool is_unix = local_endpoint(fd).family == Endpoint::Family::unix_path;
  if (!is_unix || ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return {};
  return peer.uid;
}

bool RealSystem::has_unread(int fd) {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

void RealSystem::shutdown_write(int fd) { ::shutdown(fd, SHUT_WR); }

void RealSystem::reset_on_close(int fd) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void RealSystem::close(int fd) { ::close(fd); }

static epoll_event edges(void* tag, bool writing) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (writing ? static_cast<std::uint32_t>(EPOLLOUT) : 0U);
  event.data.ptr = tag;
  return event;
}

void RealSystem::watch(int fd, void* tag, Trigger trigger, bool writing) {
  epoll_event event = edges(tag, writing);
  if (trigger == Trigger::level) event.events = EPOLLIN;
  CHECK(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0);
}

void RealSystem::rewatch(int fd, void* tag, bool writing) {
  epoll_event event = edges(tag, writing);
  CHECK(::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0);
}

void RealSystem::unwatch(int fd) { ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); }

static std::uint32_t to_readiness(std::uint32_t epoll) {
  std::uint32_t readiness = 0;
  if ((epoll & EPOLLIN) != 0) readiness |= kReadable;
  if ((epoll & EPOLLOUT) != 0) readiness |= kWritable;
  if ((epoll & EPOLLRDHUP) != 0) readiness |= kHangup;
  if ((epoll & (EPOLLHUP | EPOLLERR)) != 0) readiness |= kBroken;
  return readiness;
}

// To the nanosecond where the kernel (5.11) and the container's system call filter allow it, else to the millisecond.
static int wait_for_events(int epoll, std::span<epoll_event> ready, Duration wait_max) {
  static constexpr Duration kLongest = std::chrono::minutes(1);
  const auto room = static_cast<int>(ready.size());
  const Duration wait = std::min(wait_max, kLongest);
  static std::atomic<bool> precise = true;
  if (precise.load(std::memory_order_relaxed)) {
    const timespec limit{.tv_sec = wait.count() / 1'000'000'000, .tv_nsec = wait.count() % 1'000'000'000};
    const int count = ::epoll_pwait2(epoll, ready.data(), room, &limit, nullptr);
    if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
    precise = false;
  }
  return ::epoll_wait(epoll, ready.data(), room, static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(wait).count()));
}

std::size_t RealSystem::poll(std::span<Event> events, Duration wait_max) {
  static constexpr std::size_t kBatch = 256;
  std::array<epoll_event, kBatch> ready;
  const int count = wait_for_events(epoll_, std::span(ready).first(std::min(kBatch, events.size())), wait_max);
  std::size_t used = 0;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = ready[static_cast<std::size_t>(i)];
    if (event.data.ptr == nullptr) {  // wake()
      eventfd_t value = 0;
      ::eventfd_read(wake_, &value);
      continue;
    }
    events[used++] = {event.data.ptr, to_readiness(event.events)};
  }
  return used;
}

void RealSystem::wake() { ::eventfd_write(wake_, 1); }

Result<std::pair<Handle, Handle>> RealSystem::message_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return std::unexpected(from_errno(errno, "socketpair"));
  }
  return std::pair{Handle(*this, ends[0]), Handle(*this, ends[1])};
}

static constexpr std::size_t kDescriptorsPerMessageMax = 250;  // the kernel's limit is 253

Transfer RealSystem::send_message(int fd, std::string_view bytes, std::span<const int> descriptors) {
  CHECK(descriptors.size() <= kDescriptorsPerMessageMax);
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};  // NOLINT: sendmsg does not write there
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptorsPerMessageMax * sizeof(int))> control{};
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  return outcome(::sendmsg(fd, &message, MSG_NOSIGNAL));
}

Transfer RealSystem::receive_message(int fd, std::span<char> into, std::vector<Handle>& descriptors) {
  iovec piece{into.data(), into.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptorsPerMessageMax * sizeof(int))> control{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const Transfer got = outcome(::recvmsg(fd, &message, MSG_CMSG_CLOEXEC));
  if (got.count < 0) return got;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(header) + i * sizeof(int), sizeof received);
      descriptors.emplace_back(*this, received);
    }
  }
  if ((message.msg_flags & MSG_TRUNC) != 0) return {-1, EMSGSIZE};
  return got;
}

static Result<std::vector<Endpoint>> look_up(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return base::fail(Code::unreachable, "cannot resolve '" + host + "': " + ::gai_strerror(error));
  }
  std::vector<Endpoint> endpoints;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    sockaddr_storage storage{};
    std::memcpy(&storage, at->ai_addr, at->ai_addrlen);
    endpoints.push_back(from_address(storage));
    endpoints.back().port = port;
  }
  ::freeaddrinfo(found);
  return endpoints;
}

// Lookups under way in this process: a name server that does not answer holds each for a minute.
static std::atomic<int> lookups = 0;

void RealSystem::resolve(std::string host, std::uint16_t port, std::function<void(Result<std::vector<Endpoint>>)> done) {
  static constexpr int kLookupsMax = 256;
  if (lookups.fetch_add(1) >= kLookupsMax) {
    --lookups;
    done(base::fail(Code::full, "'" + host + "' is not looked up: too many names are being looked up already"));
    return;
  }
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the loops' threads
  try {
    std::thread([host = std::move(host), port, done] {
      done(look_up(host, port));
      --lookups;
    }).detach();
  } catch (const std::system_error& error) {  // the standard library's way to say that there can be no more threads
    --lookups;
    done(base::fail(Code::full, std::string("a name cannot be looked up: ") + error.what()));
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace ringmaster::io
