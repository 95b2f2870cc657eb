// What a request costs in allocations: none, once everything is warm. Counted, by replacing malloc for this one program and
// counting on the worker's thread; so it is built without sanitizers, which replace malloc themselves.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <future>

#include "config/load.h"
#include "io/real_system.h"
#include "proxy/frontend.h"

extern "C" {
void* __libc_malloc(std::size_t);               // NOLINT: glibc's names
void* __libc_calloc(std::size_t, std::size_t);  // NOLINT
void* __libc_realloc(void*, std::size_t);       // NOLINT
void __libc_free(void*);                        // NOLINT
}

namespace {
thread_local bool counted = false;
std::atomic<std::uint64_t> allocations = 0;
void count() {
  if (counted) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

extern "C" {
void* malloc(std::size_t bytes) { return count(), __libc_malloc(bytes); }                              // NOLINT
void* calloc(std::size_t number, std::size_t bytes) { return count(), __libc_calloc(number, bytes); }  // NOLINT
void* realloc(void* block, std::size_t bytes) { return count(), __libc_realloc(block, bytes); }        // NOLINT
void free(void* block) { __libc_free(block); }                                                         // NOLINT
}

namespace ringmaster {
namespace {

class Hello final : public wire::Handler {
 public:
  io::Async<void> handle(wire::Exchange& exchange) override { co_await exchange.reply(200, "text/plain", "Hello, World!\n"); }
};

// Runs `call` on a loop's thread and waits for its end.
template <class F>
void on(io::Loop& loop, F call) {
  std::promise<void> done;
  loop.post([&] {
    call();
    done.set_value();
  });
  done.get_future().wait();
}

// A server and a balancer before it, each on a thread of its own, as in the engine; and a client.
class Cost : public testing::Test {
 protected:
  void begin(const std::string& pool) {
    const std::string text =
        "[[listener]]\naddress = \"127.0.0.1:0\"\npool = \"web\"\n[pool.web]\ncommand = [\"x\", \"{port}\"]\nslow_start = \"0ms\"\n" + pool;
    config_ = std::get<config::Config>(config::parse("t", text));
    registry_ =
        std::make_unique<proxy::Registry>(config_, cells_.data(), proxy::Registry::Listener{[](const auto&) {}, [](const auto&) {}, [](const auto&) {}});
    link::Snapshot snapshot{1, {}};
    for (std::uint32_t slot = 1; slot <= 3; ++slot) {
      link::ReplicaState& replica = snapshot.replicas.emplace_back();
      replica.pool = "web";
      replica.slot = replica.cell = slot;
      replica.epoch = 1;
      replica.name = "S" + std::to_string(slot);
      replica.state = link::State::running;
      replica.healthy = true;
      replica.endpoint = serve(server_, hello_, servers_);
    }
    registry_->apply(snapshot);
    shared_ = std::make_unique<proxy::Shared>(system_, config_, *registry_);
    on(worker_->loop(), [&] {
      balancer_ = std::make_unique<proxy::Balancer>(worker_->loop(), config_, *shared_, proxy::Balancer::Reports{[](const auto&) {}, [](const auto&) {}});
      balancer_->adopt(registry_->view(), {});
      frontend_ = std::make_unique<proxy::Frontend>(config_, 0, *shared_, *balancer_);
    });
    at_ = serve(worker_, *frontend_, balancers_);
    client_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{AF_INET, htons(at_.port), {htonl(INADDR_LOOPBACK)}, {}};
    ASSERT_EQ(::connect(client_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }

  base::Endpoint serve(const std::unique_ptr<io::LoopThread>& thread, wire::Handler& handler, std::vector<std::unique_ptr<wire::Server>>& servers) {
    base::Endpoint at;
    on(thread->loop(), [&] {
      auto listening = thread->loop().system().listen(base::Endpoint::loopback(0), {});
      at = thread->loop().system().local_endpoint(listening->fd());
      servers.push_back(std::make_unique<wire::Server>(thread->loop(), handler, wire::ServerLimits{}));
      servers.back()->listen(std::move(*listening));
    });
    return at;
  }

  void request(int times, std::string_view text = "GET /home HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n") {
    for (int i = 0; i < times; ++i) {
      ASSERT_EQ(::send(client_, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
      std::string answer;
      while (!answer.ends_with("World!\n")) {
        std::array<char, 4096> room;
        const ssize_t got = ::recv(client_, room.data(), room.size(), 0);
        ASSERT_GT(got, 0);
        answer.append(room.data(), static_cast<std::size_t>(got));
      }
      ASSERT_TRUE(answer.starts_with("HTTP/1.1 200 OK")) << answer;
    }
  }

  std::uint64_t allocations_of(int times) {
    on(worker_->loop(), [] { counted = true; });
    const std::uint64_t before = allocations;
    request(times);
    const std::uint64_t after = allocations;
    on(worker_->loop(), [] { counted = false; });
    return after - before;
  }

  void TearDown() override {
    ::close(client_);
    const auto end = [](io::Loop& loop, std::vector<std::unique_ptr<wire::Server>>& servers, std::promise<void>& done) -> io::Async<void> {
      for (const auto& server : servers) co_await server->stop(loop.now());
      servers.clear();
      done.set_value();
    };
    for (auto* part : {&balancers_, &servers_}) {
      io::Loop& loop = part == &balancers_ ? worker_->loop() : server_->loop();
      std::promise<void> done;
      loop.post([&] { loop.root().spawn(end(loop, *part, done)); });
      done.get_future().wait();
    }
    on(worker_->loop(), [&] {
      frontend_.reset();
      balancer_.reset();
    });
    worker_->loop().stop();
    server_->loop().stop();
  }

  io::RealSystem system_;
  Hello hello_;
  std::vector<balance::Cell> cells_ = std::vector<balance::Cell>(8);
  config::Config config_;
  std::unique_ptr<proxy::Registry> registry_;
  std::unique_ptr<proxy::Shared> shared_;
  std::unique_ptr<proxy::Balancer> balancer_;
  std::unique_ptr<proxy::Frontend> frontend_;
  std::vector<std::unique_ptr<wire::Server>> balancers_;
  std::vector<std::unique_ptr<wire::Server>> servers_;
  std::unique_ptr<io::LoopThread> server_ = system_.start_loop();
  std::unique_ptr<io::LoopThread> worker_ = system_.start_loop();
  base::Endpoint at_;
  int client_ = -1;
};

TEST_F(Cost, OfARequestIsNoAllocationOnceWarm) {
  begin("");
  request(200);
  // Over the end of a second, too, when the Date field's text is made anew.
  const auto second = [] { return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()); };
  for (const auto began = second(); second() == began;) EXPECT_EQ(allocations_of(1000), 0U);
}

TEST_F(Cost, OfBoundedLoadAndCapacityIsNoAllocationEither) {
  begin("key = \"header:User-Agent\"\nmax_in_flight = 10\n");
  request(200);
  EXPECT_EQ(allocations_of(1000), 0U);
}

TEST_F(Cost, IsCounted) {
  begin("");
  request(1);
  on(worker_->loop(), [] { counted = true; });
  const std::uint64_t before = allocations;
  on(worker_->loop(), [] { EXPECT_TRUE(std::make_unique<std::string>(5000, 'x')); });
  EXPECT_GT(allocations, before);
}

}  // namespace
}  // namespace ringmaster
