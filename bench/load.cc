// The load: one thread that keeps a number of connections busy (closed loop) or sends at a fixed rate (open loop), and
// tells in one line of JSON what came back.
//
//   load --to 127.0.0.1:8080 [--path /home] [--connections 64] [--seconds 3] [--rate R] [--body BYTES] [--fresh]
//
//   --rate    requests a second, evenly; latency counts from the instant at which a request was due, so that a stall is
//             not hidden by the requests that it kept from being sent
//   --body    POST so many bytes instead of GET          --fresh   a new connection for each request
//
// Answers must have a Content-Length. It is as lean as it can be and shares no code with what it measures.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string to;
  std::string path = "/home";
  unsigned connections = 64;
  double seconds = 3;
  double rate = 0;
  unsigned long long body = 0;
  bool fresh = false;
};

struct Connection {
  int fd = -1;
  Clock::time_point due;
  std::size_t head_sent = 0;
  unsigned long long body_left = 0;
  std::string head;                    // of the answer, while it is incomplete
  unsigned long long answer_left = 0;  // of its body
  bool in_body = false;
  bool busy = false;
  bool refused = false;
};

Options options;
sockaddr_in target{};
int epoll_fd = -1;
std::string request;
std::array<char, 1 << 18> scratch;
std::array<char, 1 << 20> filler;
std::vector<unsigned> latencies;          // counts by a log-linear scale, 64 steps to an octave of microseconds
std::vector<unsigned> refusal_latencies;  // the same of answers with 4xx and 5xx
unsigned long long answered = 0, errors = 0, refused = 0, bytes = 0;
std::vector<Connection*> idle;
std::deque<Clock::time_point> waiting;  // open loop: due, and no connection free
bool over = false;

std::size_t bucket_of(unsigned long long us) {
  if (us < 128) return us;
  const int octave = 63 - __builtin_clzll(us);
  return static_cast<std::size_t>((octave - 6) * 64 + static_cast<int>(us >> (octave - 6)));
}
double value_of(std::size_t bucket) {
  if (bucket < 128) return static_cast<double>(bucket);
  const std::size_t octave = bucket / 64 + 5;
  return static_cast<double>((bucket % 64 + 64) << (octave - 6));
}

void start(Connection& c, Clock::time_point due);

void open(Connection& c) {
  c.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(c.fd, reinterpret_cast<sockaddr*>(&target), sizeof target) != 0 && errno != EINPROGRESS) {
    std::perror("connect");
    std::exit(1);
  }
  epoll_event event{EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, {&c}};
  ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c.fd, &event);
}

void reopen(Connection& c) {
  // RST instead of FIN: the port of a benchmark's connection must not linger in TIME_WAIT, there are 28,000 of them.
  const linger hard{1, 0};
  ::setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  ::close(c.fd);
  c.head.clear();
  c.in_body = false;
  open(c);
}

void finished(Connection& c, Clock::time_point now) {
  ++answered;
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now - c.due).count();
  std::vector<unsigned>& counts = c.refused ? refusal_latencies : latencies;
  ++counts[std::min(counts.size() - 1, bucket_of(static_cast<unsigned long long>(std::max<long long>(us, 0))))];
  c.busy = false;
  if (options.fresh) reopen(c);
  if (over) return;
  if (options.rate == 0) {
    start(c, now);
  } else if (!waiting.empty()) {
    const auto due = waiting.front();
    waiting.pop_front();
    start(c, due);
  } else {
    idle.push_back(&c);
  }
}

void failed(Connection& c) {
  ++errors;
  reopen(c);
  if (!over) start(c, Clock::now());
}

// Sends what the socket takes; the rest goes on with EPOLLOUT.
void send(Connection& c) {
  while (c.busy && (c.head_sent < request.size() || c.body_left > 0)) {
    const auto piece = static_cast<std::size_t>(std::min<unsigned long long>(c.body_left, filler.size()));
    const iovec pieces[2] = {{request.data() + c.head_sent, request.size() - c.head_sent}, {filler.data(), piece}};
    const ssize_t sent = piece == 0 ? ::send(c.fd, request.data() + c.head_sent, request.size() - c.head_sent, MSG_NOSIGNAL) : ::writev(c.fd, pieces, 2);
    if (sent < 0) {
      if (errno != EAGAIN && errno != ENOTCONN) failed(c);
      return;
    }
    const auto of_head = std::min(static_cast<std::size_t>(sent), request.size() - c.head_sent);
    c.head_sent += of_head;
    c.body_left -= static_cast<std::size_t>(sent) - of_head;
    bytes += static_cast<std::size_t>(sent) - of_head;
  }
}

void start(Connection& c, Clock::time_point due) {
  c.due = due;
  c.busy = true;
  c.head_sent = 0;
  c.body_left = options.body;
  send(c);
}

// True when the answer is whole.
bool take(Connection& c, std::string_view got) {
  if (!c.in_body) {
    if (!c.head.empty()) got = c.head.append(got);
    const std::size_t end = got.find("\r\n\r\n");
    if (end == std::string_view::npos) {
      if (c.head.empty()) c.head = got;
      return false;
    }
    c.refused = got.size() > 12 && (got[9] == '5' || got[9] == '4');
    if (c.refused) {
      ++refused;
    } else if (got.size() < 12 || got[9] != '2') {
      ++errors;
    }
    static constexpr std::string_view kLength = "content-length:";
    const auto same = [](char a, char b) { return (a | 32) == (b | 32); };
    const auto found = std::search(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(end), kLength.begin(), kLength.end(), same);
    c.answer_left = found == got.begin() + static_cast<std::ptrdiff_t>(end) ? 0 : std::strtoull(&*found + kLength.size(), nullptr, 10);
    const std::size_t rest = got.size() - end - 4;
    c.answer_left -= std::min<unsigned long long>(c.answer_left, rest);
    bytes += rest;
    c.head.clear();
    c.in_body = c.answer_left > 0;
    return !c.in_body;
  }
  c.answer_left -= std::min<unsigned long long>(c.answer_left, got.size());
  bytes += got.size();
  if (c.answer_left > 0) return false;
  c.in_body = false;
  return true;
}

void receive(Connection& c) {
  while (c.busy) {
    const ssize_t got = ::recv(c.fd, scratch.data(), scratch.size(), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
      failed(c);
      return;
    }
    if (got < 0) return;
    if (take(c, {scratch.data(), static_cast<std::size_t>(got)})) {
      finished(c, Clock::now());
      return;
    }
    if (static_cast<std::size_t>(got) < scratch.size()) return;
  }
}

void run(std::vector<Connection>& connections) {
  std::array<epoll_event, 512> events;
  const auto begun = Clock::now();
  const auto until = begun + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.seconds));
  unsigned long long sent = 0;
  for (Connection& c : connections) {
    if (options.rate == 0) {
      start(c, begun);
    } else {
      idle.push_back(&c);
    }
  }
  while (true) {
    const auto now = Clock::now();
    if (now >= until) break;
    timespec wait{0, 0};
    if (options.rate > 0) {
      auto due = begun + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(static_cast<double>(sent) / options.rate));
      while (due <= now) {
        if (idle.empty()) {
          waiting.push_back(due);
        } else {
          Connection* c = idle.back();
          idle.pop_back();
          start(*c, due);
        }
        due = begun + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(static_cast<double>(++sent) / options.rate));
      }
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(std::min(due, until) - now).count();
      wait = {left / 1'000'000'000, left % 1'000'000'000};
    } else {
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(until - now).count();
      wait = {left / 1'000'000'000, left % 1'000'000'000};
    }
    const int count = ::epoll_pwait2(epoll_fd, events.data(), static_cast<int>(events.size()), &wait, nullptr);
    for (int i = 0; i < count; ++i) {
      auto& c = *static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (!c.busy) continue;
      if (c.head_sent < request.size() || c.body_left > 0) send(c);
      if ((events[static_cast<std::size_t>(i)].events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) receive(c);
    }
  }
  over = true;
}

double percentile(const std::vector<unsigned>& counts, double share) {
  unsigned long long total = 0;
  for (const unsigned count : counts) total += count;
  const auto wanted = static_cast<unsigned long long>(share * static_cast<double>(total));
  unsigned long long seen = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    seen += counts[i];
    if (seen > wanted) return value_of(i) / 1000;
  }
  return 0;
}

bool parse(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--fresh") {
      options.fresh = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* value = argv[++i];
    if (name == "--to")
      options.to = value;
    else if (name == "--path")
      options.path = value;
    else if (name == "--connections")
      options.connections = static_cast<unsigned>(std::atoi(value));
    else if (name == "--seconds")
      options.seconds = std::atof(value);
    else if (name == "--rate")
      options.rate = std::atof(value);
    else if (name == "--body")
      options.body = std::strtoull(value, nullptr, 10);
    else
      return false;
  }
  return options.to.contains(':') && options.connections > 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (!parse(argc, argv)) {
    std::fprintf(stderr, "usage: load --to HOST:PORT [--path P] [--connections N] [--seconds S] [--rate R] [--body BYTES] [--fresh]\n");
    return 2;
  }
  const std::size_t colon = options.to.rfind(':');
  target.sin_family = AF_INET;
  target.sin_port = htons(static_cast<std::uint16_t>(std::atoi(options.to.c_str() + colon + 1)));
  ::inet_pton(AF_INET, options.to.substr(0, colon).c_str(), &target.sin_addr);
  request = std::string(options.body > 0 ? "POST " : "GET ") + options.path + " HTTP/1.1\r\nHost: " + options.to + "\r\n";
  if (options.body > 0) request += "Content-Length: " + std::to_string(options.body) + "\r\n";
  if (options.fresh) request += "Connection: close\r\n";
  request += "\r\n";
  latencies.resize(64 * 40);
  refusal_latencies.resize(64 * 40);
  epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
  std::vector<Connection> connections(options.connections);
  for (Connection& c : connections) open(c);
  const auto begun = Clock::now();
  run(connections);
  const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  std::printf(
      "{\"requests\":%llu,\"errors\":%llu,\"refused\":%llu,\"seconds\":%.3f,\"bytes\":%llu,\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,"
      "\"refusal_p99_ms\":%.3f,\"late\":%zu}\n",
      answered, errors, refused, seconds, bytes, percentile(latencies, 0.5), percentile(latencies, 0.9), percentile(latencies, 0.99),
      percentile(latencies, 0.999), percentile(refusal_latencies, 0.99), waiting.size());
  return 0;
}
