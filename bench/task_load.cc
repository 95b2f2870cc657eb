// The load on a task queue: one thread and a number of connections, each of which sends one submission, waits for its
// acknowledgement and sends the next (closed loop). Tells in one line of JSON what came back.
//
//   task_load --protocol http|beanstalk|gearman --port P [--unix PATH] [--clients 64] [--seconds 3] [--payload JSON]
//   task_load --fdatasync FILE [--seconds 3]
//
//   http        POST /v1/tasks      wants 202 or 200        --unix        connects there instead of to 127.0.0.1:P
//   beanstalk   put                 wants INSERTED          --fdatasync   no load: how often a second 4096 bytes can be
//   gearman     SUBMIT_JOB_BG       wants JOB_CREATED                     appended to FILE and be on the disk
//
// After half a second that does not count, `accepted` is what was acknowledged in S seconds; the latencies are of that, and
// of what was under way at the end. `accepted_in_all` has the warm-up and the end, too: what a server's CPU time is to be
// divided by. Whatever else comes back, at any time, is `failed`, and the first of it goes to stderr.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;
using namespace std::string_literals;
using namespace std::string_view_literals;

constexpr auto kWarmUp = 500ms;
constexpr auto kPatience = 10s;  // with what is still unanswered at the end
constexpr std::size_t kAnswerBytesMax = 64 << 10, kComplaintBytesMax = 500;

struct Options {
  std::string protocol;
  std::string unix_path;
  std::string payload = R"({"to":"somebody@example.org","subject":"hello"})";
  std::string fdatasync_file;
  unsigned port = 0;
  unsigned clients = 64;
  double seconds = 3;
};

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

// --- the protocols: a submission as bytes, and what is to be thought of the bytes that came back ---

enum class Verdict : std::uint8_t {
  incomplete,
  accepted,
  refused,  // a whole answer, but not the one that is wanted
  broken,   // not understood: the connection is of no use any more
};

Verdict whole(std::size_t size, std::size_t expected, bool wanted) {
  if (size < expected) return Verdict::incomplete;
  if (size > expected) return Verdict::broken;
  return wanted ? Verdict::accepted : Verdict::refused;
}

std::string http_submission(const std::string& payload, std::uint64_t) {
  const std::string body = R"({"type":"noop","payload":)" + payload + "}";
  return "POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

Verdict judge_http(std::string_view answer) {
  static constexpr std::string_view kLength = "\r\ncontent-length: ";
  const std::size_t end = answer.find("\r\n\r\n");
  if (end == std::string_view::npos) return Verdict::incomplete;
  const std::string_view head = answer.substr(0, end);
  const auto same = [](char a, char b) { return a == b || ((a | 32) == (b | 32) && (a | 32) >= 'a' && (a | 32) <= 'z'); };
  const auto found = std::search(head.begin(), head.end(), kLength.begin(), kLength.end(), same);
  if (!head.starts_with("HTTP/1.1 ") || found == head.end()) return Verdict::broken;
  std::size_t length = 0;
  const char* digits = &*found + kLength.size();
  if (std::from_chars(digits, head.data() + head.size(), length).ec != std::errc{} || length > kAnswerBytesMax) return Verdict::broken;
  return whole(answer.size(), end + 4 + length, head.substr(9, 4) == "202 " || head.substr(9, 4) == "200 ");
}

std::string beanstalk_submission(const std::string& payload, std::uint64_t) {
  return "put 0 0 120 " + std::to_string(payload.size()) + "\r\n" + payload + "\r\n";
}

Verdict judge_beanstalk(std::string_view answer) {
  const std::size_t end = answer.find("\r\n");
  if (end == std::string_view::npos) return Verdict::incomplete;
  return whole(answer.size(), end + 2, answer.starts_with("INSERTED "));
}

// The header of a Gearman packet: magic, type and size of what follows, each 4 bytes, big endian.
constexpr std::size_t kGearmanHeader = 12;
constexpr std::uint32_t kJobCreated = 8, kSubmitJobBg = 18;

std::string big_endian(std::uint32_t value) {
  value = htonl(value);
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::uint32_t from_big_endian(const char* bytes) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return ntohl(value);
}

std::string gearman_submission(const std::string& payload, std::uint64_t number) {
  // Jobs with the same unique id would be one job. The process's id, as a server may have jobs of an earlier run.
  const std::string body = "noop\0"s + std::to_string(::getpid()) + "-" + std::to_string(number) + '\0' + payload;
  return "\0REQ"s + big_endian(kSubmitJobBg) + big_endian(static_cast<std::uint32_t>(body.size())) + body;
}

Verdict judge_gearman(std::string_view answer) {
  if (answer.size() < kGearmanHeader) return Verdict::incomplete;
  const std::size_t length = from_big_endian(answer.data() + 8);
  if (!answer.starts_with("\0RES"sv) || length > kAnswerBytesMax) return Verdict::broken;
  return whole(answer.size(), kGearmanHeader + length, from_big_endian(answer.data() + 4) == kJobCreated);
}

struct Protocol {
  std::string_view name;
  std::string (*submission)(const std::string& payload, std::uint64_t number);
  Verdict (*judge)(std::string_view answer);
};

constexpr std::array kProtocols = {
    Protocol{"http", http_submission, judge_http},
    Protocol{"beanstalk", beanstalk_submission, judge_beanstalk},
    Protocol{"gearman", gearman_submission, judge_gearman},
};

// --- the load ---

double microseconds(Clock::duration value) { return std::chrono::duration<double, std::micro>(value).count(); }
Clock::duration seconds(double value) { return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(value)); }

// Of what is not greater than so large a share of all; reorders them.
double quantile(std::vector<double>& all, double share) {
  if (all.empty()) return 0;
  const auto at = all.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(all.size() - 1));
  std::ranges::nth_element(all, at);
  return *at;
}

class Load {
 public:
  Load(const Options& options, const Protocol& protocol) : options_(options), protocol_(protocol), connections_(options.clients) {}

  void run() {
    std::array<epoll_event, 512> events;
    latencies_us_.reserve(1 << 21);  // as growing it takes milliseconds
    for (Connection& c : connections_) open(c);
    from_ = Clock::now() + kWarmUp;
    until_ = from_ + seconds(options_.seconds);
    for (auto now = Clock::now(); now < until_ || (busy_ > 0 && now < until_ + kPatience); now = Clock::now()) {
      const auto next = now < until_ ? until_ : until_ + kPatience;
      const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
      const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), static_cast<int>(wait));
      for (int i = 0; i < count; ++i) handle(*static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr));
    }
    if (busy_ > 0) complain("no answer");
    failed_ += busy_;
  }

  void print() {
    const double rate = static_cast<double>(accepted_) / options_.seconds;
    const double p50 = quantile(latencies_us_, 0.5), p99 = quantile(latencies_us_, 0.99), max = quantile(latencies_us_, 1);
    std::printf("{\"accepted\":%zu,\"seconds\":%.3f,\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,", accepted_, options_.seconds, rate,
                p50, p99, max);
    std::printf("\"failed\":%zu,\"accepted_in_all\":%zu}\n", failed_, accepted_in_all_);
  }

 private:
  struct Connection {
    int fd = -1;
    std::string submission;
    std::size_t sent = 0;
    std::string answer;
    Clock::time_point begun;
    bool busy = false;
  };

  // Waits until it is connected, so that a short backlog does not refuse some of many. The first event then is EPOLLOUT,
  // and begins the first submission.
  void open(Connection& c) {
    sockaddr_in tcp{AF_INET, htons(static_cast<std::uint16_t>(options_.port)), {htonl(INADDR_LOOPBACK)}, {}};
    sockaddr_un local{AF_UNIX, {}};
    options_.unix_path.copy(local.sun_path, sizeof local.sun_path - 1);
    const bool is_tcp = options_.unix_path.empty();
    const auto* address = reinterpret_cast<sockaddr*>(is_tcp ? static_cast<void*>(&tcp) : &local);
    c.fd = ::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c.fd < 0 || ::connect(c.fd, address, is_tcp ? sizeof tcp : sizeof local) != 0) die("connect");
    const int on = 1;
    if (is_tcp) ::setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, {&c}};
    if (::fcntl(c.fd, F_SETFL, O_NONBLOCK) != 0 || ::epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &event) != 0) die("epoll");
  }

  void lose(Connection& c) {
    conclude(c, false);
    ::close(c.fd);
    open(c);
  }

  void handle(Connection& c) {
    if (c.busy && !(send(c) && receive(c))) return lose(c);
    if (!c.busy) submit(c);
  }

  void submit(Connection& c) {
    c.begun = Clock::now();
    if (c.begun >= until_) return;
    c.submission = protocol_.submission(options_.payload, submitted_++);
    c.sent = 0;
    c.answer.clear();
    c.busy = true;
    ++busy_;
    if (!send(c)) lose(c);
  }

  // send() and receive() are false when the connection is lost.
  bool send(Connection& c) {
    while (c.sent < c.submission.size()) {
      const ssize_t sent = ::send(c.fd, c.submission.data() + c.sent, c.submission.size() - c.sent, MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN || complain(std::strerror(errno));
      c.sent += static_cast<std::size_t>(sent);
    }
    return true;
  }

  bool receive(Connection& c) {
    std::array<char, 16 << 10> piece;
    while (true) {
      const ssize_t got = ::recv(c.fd, piece.data(), piece.size(), 0);
      if (got == 0) return complain("the connection was closed");
      if (got < 0) return errno == EAGAIN || complain(std::strerror(errno));
      c.answer.append(piece.data(), static_cast<std::size_t>(got));
      const Verdict verdict = c.answer.size() > 2 * kAnswerBytesMax ? Verdict::broken : protocol_.judge(c.answer);
      if (verdict == Verdict::incomplete) continue;
      if (verdict != Verdict::accepted) complain(c.answer);
      if (verdict == Verdict::broken) return false;
      conclude(c, verdict == Verdict::accepted);
      return true;
    }
  }

  void conclude(Connection& c, bool accepted) {
    c.busy = false;
    --busy_;
    ++(accepted ? accepted_in_all_ : failed_);
    const auto now = Clock::now();
    if (!accepted || now < from_) return;
    if (now < until_) ++accepted_;
    latencies_us_.push_back(microseconds(now - c.begun));
  }

  // Tells the first fault. False, which is what its callers go on with.
  bool complain(std::string_view what) {
    if (failed_ > 0) return false;
    std::string text(what.substr(0, kComplaintBytesMax));
    std::ranges::replace_if(text, [](char x) { return (x < ' ' && x != '\n') || x > '~'; }, '.');
    std::fprintf(stderr, "task_load: unexpected: %s\n", text.c_str());
    return false;
  }

  const Options& options_;
  const Protocol& protocol_;
  std::vector<Connection> connections_;
  const int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  Clock::time_point from_ = Clock::time_point::max(), until_ = Clock::time_point::max();
  std::size_t busy_ = 0, submitted_ = 0, accepted_ = 0, accepted_in_all_ = 0, failed_ = 0;
  std::vector<double> latencies_us_;
};

// --- the disk alone ---

void measure_disk(const Options& options) {
  const int fd = ::open(options.fdatasync_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) die("open");
  std::array<char, 4096> block;
  block.fill('x');
  std::vector<double> latencies_us;
  const auto begun = Clock::now();
  const auto until = begun + seconds(options.seconds);
  auto now = begun;
  while (now < until) {
    if (::write(fd, block.data(), block.size()) != static_cast<ssize_t>(block.size()) || ::fdatasync(fd) != 0) die("write and fdatasync");
    const auto before = std::exchange(now, Clock::now());
    latencies_us.push_back(microseconds(now - before));
  }
  const double rate = static_cast<double>(latencies_us.size()) / std::chrono::duration<double>(now - begun).count();
  std::printf("{\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", rate, quantile(latencies_us, 0.5), quantile(latencies_us, 0.99));
}

bool parse(int argc, char** argv, Options& options) {
  const std::map<std::string_view, std::function<void(const char*)>> setters = {
      {"--protocol", [&](const char* value) { options.protocol = value; }},
      {"--unix", [&](const char* value) { options.unix_path = value; }},
      {"--payload", [&](const char* value) { options.payload = value; }},
      {"--fdatasync", [&](const char* value) { options.fdatasync_file = value; }},
      {"--port", [&](const char* value) { options.port = static_cast<unsigned>(std::atoi(value)); }},
      {"--clients", [&](const char* value) { options.clients = static_cast<unsigned>(std::atoi(value)); }},
      {"--seconds", [&](const char* value) { options.seconds = std::atof(value); }},
  };
  for (int i = 1; i < argc; i += 2) {
    const auto setter = setters.find(argv[i]);
    if (setter == setters.end() || i + 1 == argc) return false;
    setter->second(argv[i + 1]);
  }
  const bool has_target = !options.fdatasync_file.empty() || !options.unix_path.empty() || (options.port > 0 && options.port < 65536);
  return has_target && options.unix_path.size() < sizeof(sockaddr_un::sun_path) && options.clients > 0 && options.seconds > 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const bool parsed = parse(argc, argv, options);
  const auto* protocol = std::ranges::find(kProtocols, options.protocol, &Protocol::name);
  if (!parsed || (options.fdatasync_file.empty() && protocol == kProtocols.end())) {
    std::fprintf(stderr, "usage: task_load --protocol http|beanstalk|gearman --port P [--unix PATH] [--clients N] [--seconds S] [--payload JSON]\n");
    std::fprintf(stderr, "       task_load --fdatasync FILE [--seconds S]\n");
    return 2;
  }
  if (options.fdatasync_file.empty()) {
    Load load(options, *protocol);
    load.run();
    load.print();
  } else {
    measure_disk(options);
  }
  return 0;
}
