// The server behind every balancer that is measured: as little work as possible, so that the balancer is what is busy.
//
//   origin ADDRESS [MS]   127.0.0.1:8080 or unix:/path; every answer takes MS milliseconds
//
//   GET /bytes/N   N bytes        GET /slow/MS   a small answer after MS milliseconds      all else: a small answer, after the body
//
// One thread, epoll, HTTP/1.1 with Content-Length only. It shares no code with what it measures.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kSmall = "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, World!\n";
std::array<char, 1 << 20> filler;   // what /bytes answers with
std::array<char, 1 << 18> scratch;  // where requests are read to

struct Connection {
  int fd = -1;
  std::string head;                // of the request, until it is whole
  unsigned long long to_skip = 0;  // of the request's body
  std::string out_head;
  unsigned long long out_body = 0;
  bool answering = false;
  bool close_after = false;
  bool watches_writing = false;
};

int epoll_fd = -1;
int delay_ms = 0;
std::multimap<Clock::time_point, Connection*> later;
std::vector<Connection*> ended;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

int listen_at(std::string_view address) {
  int fd = -1;
  if (address.starts_with("unix:")) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    const std::string path(address.substr(5));
    if (path.size() >= sizeof at.sun_path) die("the path is too long");
    path.copy(at.sun_path, path.size());
    ::unlink(path.c_str());
    fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) die("bind");
  } else {
    const std::size_t colon = address.rfind(':');
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<std::uint16_t>(std::atoi(std::string(address.substr(colon + 1)).c_str())));
    ::inet_pton(AF_INET, std::string(address.substr(0, colon)).c_str(), &at.sin_addr);
    fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) die("bind");
  }
  if (::listen(fd, 4096) != 0) die("listen");
  return fd;
}

// EPOLLOUT only while an answer is stuck: a Unix socket that has it wakes us each time the peer reads.
void watch_writing(Connection& connection, bool on) {
  if (connection.watches_writing == on) return;
  connection.watches_writing = on;
  epoll_event event{EPOLLIN | EPOLLET | EPOLLRDHUP | (on ? EPOLLOUT : 0U), {&connection}};
  ::epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connection.fd, &event);
}

void finish(Connection& connection) {
  ::close(connection.fd);
  connection.fd = -1;
  ended.push_back(&connection);  // events of this round may still name it
}

// False: the rest waits for EPOLLOUT, or the connection is gone.
bool send(Connection& c) {
  while (!c.out_head.empty() || c.out_body > 0) {
    const std::size_t piece = static_cast<std::size_t>(std::min<unsigned long long>(c.out_body, filler.size()));
    const iovec pieces[2] = {{c.out_head.data(), c.out_head.size()}, {filler.data(), piece}};
    const ssize_t sent = c.out_body == 0 ? ::send(c.fd, c.out_head.data(), c.out_head.size(), MSG_NOSIGNAL) : ::writev(c.fd, pieces, 2);
    if (sent < 0) {
      if (errno == EAGAIN) {
        watch_writing(c, true);
      } else {
        finish(c);
      }
      return false;
    }
    const auto of_head = std::min(static_cast<std::size_t>(sent), c.out_head.size());
    c.out_head.erase(0, of_head);
    c.out_body -= static_cast<std::size_t>(sent) - of_head;
  }
  c.answering = false;
  watch_writing(c, false);
  if (c.close_after) finish(c);
  return c.fd >= 0;
}

std::string_view field(std::string_view head, std::string_view name) {
  for (std::size_t at = head.find("\r\n"); at != std::string_view::npos && at + 2 < head.size(); at = head.find("\r\n", at + 2)) {
    std::string_view line = head.substr(at + 2, head.find("\r\n", at + 2) - at - 2);
    if (line.size() > name.size() && line[name.size()] == ':' && ::strncasecmp(line.data(), name.data(), name.size()) == 0) {
      line.remove_prefix(name.size() + 1);
      while (line.starts_with(' ')) line.remove_prefix(1);
      return line;
    }
  }
  return {};
}

bool answer(Connection& c, std::string_view path) {
  c.answering = true;
  if (path.starts_with("/bytes/")) {
    c.out_body = std::strtoull(path.data() + 7, nullptr, 10);
    c.out_head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: " + std::to_string(c.out_body) + "\r\n\r\n";
    return send(c);
  }
  if (delay_ms > 0 && !path.empty()) {
    later.emplace(Clock::now() + std::chrono::milliseconds(delay_ms), &c);
    return false;
  }
  if (path.starts_with("/slow/")) {
    later.emplace(Clock::now() + std::chrono::milliseconds(std::atoi(path.data() + 6)), &c);
    return false;
  }
  const ssize_t sent = ::send(c.fd, kSmall.data(), kSmall.size(), MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(kSmall.size())) {
    c.answering = false;
    if (c.close_after) finish(c);
    return c.fd >= 0;
  }
  c.out_head = kSmall.substr(sent < 0 ? 0 : static_cast<std::size_t>(sent));
  return send(c);
}

// The bytes of one or more requests, or of a part of one.
bool take(Connection& c, std::string_view bytes) {
  if (c.to_skip > 0) {
    const auto skipped = static_cast<std::size_t>(std::min<unsigned long long>(c.to_skip, bytes.size()));
    c.to_skip -= skipped;
    if (c.to_skip > 0) return true;
    return answer(c, "/");
  }
  if (!c.head.empty()) bytes = c.head.append(bytes);
  const std::size_t end = bytes.find("\r\n\r\n");
  if (end == std::string_view::npos) {
    if (c.head.empty()) c.head = bytes;
    return true;
  }
  const std::string_view head = bytes.substr(0, end + 2);
  const std::size_t space = head.find(' ');
  const std::string_view rest = bytes.substr(end + 4);
  const std::string_view length = bytes[0] == 'G' ? std::string_view{} : field(head, "content-length");
  c.close_after = field(head, "connection").starts_with("close");
  if (!length.empty()) {
    c.to_skip = std::strtoull(length.data(), nullptr, 10);
    const bool with_body = c.to_skip > 0;
    if (with_body && rest.size() < c.to_skip) {
      c.to_skip -= rest.size();
      c.head.clear();
      return true;
    }
    c.to_skip = 0;
  }
  const bool on = answer(c, head.substr(space + 1));
  c.head.clear();
  return on;
}

void receive(Connection& c) {
  while (c.fd >= 0 && !c.answering) {
    const ssize_t got = ::recv(c.fd, scratch.data(), scratch.size(), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) finish(c);
    if (got <= 0) return;
    const bool on = take(c, {scratch.data(), static_cast<std::size_t>(got)});
    if (!on || static_cast<std::size_t>(got) < scratch.size()) return;
  }
}

void accept_all(int listener) {
  while (true) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    auto* connection = new Connection{fd, {}, 0, {}, 0, false, false, false};
    epoll_event event{EPOLLIN | EPOLLET | EPOLLRDHUP, {connection}};
    ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
  }
}

void serve(int listener) {
  std::array<epoll_event, 512> events;
  while (true) {
    int wait_ms = -1;
    if (!later.empty()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(later.begin()->first - Clock::now()).count();
      wait_ms = static_cast<int>(std::max<long long>(0, left));
    }
    const int count = ::epoll_wait(epoll_fd, events.data(), static_cast<int>(events.size()), wait_ms);
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (connection == nullptr) {
        accept_all(listener);
      } else if (connection->fd >= 0) {
        if (connection->answering && (!connection->out_head.empty() || connection->out_body > 0)) send(*connection);
        if (connection->fd >= 0 && (events[static_cast<std::size_t>(i)].events & (EPOLLIN | EPOLLRDHUP)) != 0) receive(*connection);
      }
    }
    while (!later.empty() && later.begin()->first <= Clock::now()) {
      Connection* connection = later.begin()->second;
      later.erase(later.begin());
      if (connection->fd < 0) continue;
      if (answer(*connection, {})) receive(*connection);
    }
    for (Connection* connection : ended) {
      if (std::ranges::none_of(later, [&](const auto& entry) { return entry.second == connection; })) delete connection;
    }
    ended.clear();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: origin ADDRESS [MS]\n");
    return 2;
  }
  if (argc == 3) delay_ms = std::atoi(argv[2]);
  ::signal(SIGPIPE, SIG_IGN);
  epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
  const int listener = listen_at(argv[1]);
  epoll_event event{EPOLLIN, {nullptr}};
  ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
  serve(listener);
}
