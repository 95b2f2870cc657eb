// What single steps of a request cost: codec, pick, routes, histogram. `./dev bench micro`.
#include <benchmark/benchmark.h>

#include "balance/model.h"
#include "base/histogram.h"
#include "http/head_parser.h"
#include "http/serialize.h"
#include "http/target.h"
#include "proxy/route_table.h"

namespace ringmaster {
namespace {

using balance::Policy;

constexpr std::string_view kRequest =
    "GET /api/v1/users/12345?fields=name HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    "Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate\r\nCookie: session=abcdef0123456789\r\n\r\n";
constexpr std::string_view kResponse =
    "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-cache\r\nContent-Length: 5\r\n\r\n";

void parse_request(benchmark::State& state) {
  http::RequestParser parser;
  for (auto _ : state) {
    parser.restart();
    benchmark::DoNotOptimize(parser.parse(kRequest));
  }
}
BENCHMARK(parse_request);

void parse_response(benchmark::State& state) {
  http::ResponseParser parser;
  for (auto _ : state) {
    parser.restart(http::Method::get);
    benchmark::DoNotOptimize(parser.parse(kResponse));
  }
}
BENCHMARK(parse_response);

void serialize_request(benchmark::State& state) {
  http::RequestParser parser;
  parser.parse(kRequest);
  std::string out;
  for (auto _ : state) {
    out.clear();
    http::append_request(out, parser.head(), {parser.head().path, {"10.0.0.7", "http"}});
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(serialize_request);

void normalise_path(benchmark::State& state) {
  std::string scratch;
  std::string_view normal;
  for (auto _ : state) benchmark::DoNotOptimize(http::normalise_path("/api/v1/users/12345/profile.html", scratch, normal));
}
BENCHMARK(normalise_path);

void pick(benchmark::State& state, Policy policy) {
  balance::Model model(policy, static_cast<std::uint32_t>(state.range(0)));
  if (balance::is_hashing(policy) && policy != Policy::ring) model.pool.bound_thousandths = 1250;
  std::uint64_t key = 0;
  for (auto _ : state) benchmark::DoNotOptimize(balance::pick(model.pool, balance::hash_of({reinterpret_cast<const char*>(&++key), 8}), {}, model.state));
}
BENCHMARK_CAPTURE(pick, rendezvous, Policy::rendezvous)->Arg(16)->Arg(1024);
BENCHMARK_CAPTURE(pick, ring, Policy::ring)->Arg(16)->Arg(56);
BENCHMARK_CAPTURE(pick, maglev, Policy::maglev)->Arg(16)->Arg(10000);
BENCHMARK_CAPTURE(pick, least_requests, Policy::least_requests)->Arg(16)->Arg(10000);
BENCHMARK_CAPTURE(pick, peak_ewma, Policy::peak_ewma)->Arg(16)->Arg(10000);
BENCHMARK_CAPTURE(pick, round_robin, Policy::round_robin)->Arg(16)->Arg(10000);
BENCHMARK_CAPTURE(pick, weighted, Policy::weighted)->Arg(16)->Arg(10000);
BENCHMARK_CAPTURE(pick, random, Policy::random)->Arg(16)->Arg(10000);
BENCHMARK_CAPTURE(pick, first_available, Policy::first_available)->Arg(16)->Arg(10000);

// A ring with room for ten thousand: K virtual servers each.
void pick_large_ring(benchmark::State& state) {
  balance::RingSettings settings;
  balance::apply_preset("xxhash", settings);
  settings.slots = 1U << 20;
  balance::Model model(Policy::ring, 10000, settings);
  std::uint64_t key = 0;
  for (auto _ : state) benchmark::DoNotOptimize(balance::pick(model.pool, ++key, {}, model.state));
}
BENCHMARK(pick_large_ring);

void match_route(benchmark::State& state) {
  config::Config config;
  config.listeners.emplace_back().address = base::Endpoint::loopback(80);
  for (int i = 0; i < state.range(0); ++i) {
    config::Route& route = config.routes.emplace_back();
    if (i % 2 == 0) route.host = "host" + std::to_string(i) + ".example.org";
    route.prefix = "/api/v" + std::to_string(i);
  }
  const proxy::RouteTable table(config, config.listeners[0]);
  http::RequestParser parser;
  parser.parse(kRequest);
  for (auto _ : state) benchmark::DoNotOptimize(table.match(parser.head(), "/api/v501/users/12345"));
}
BENCHMARK(match_route)->Arg(10)->Arg(1000);

void record_latency(benchmark::State& state) {
  base::Histogram histogram;
  std::int64_t ns = 0;
  for (auto _ : state) histogram.record(base::Duration((ns += 7919) & 0xffffff));
}
BENCHMARK(record_latency);

void make_view(benchmark::State& state, Policy policy) {
  balance::Model model(policy, static_cast<std::uint32_t>(state.range(0)));
  for (auto _ : state) {
    balance::PoolView view = model.pool;
    benchmark::DoNotOptimize(balance::prepare(view, {}, nullptr).has_value());
  }
}
BENCHMARK_CAPTURE(make_view, maglev, Policy::maglev)->Arg(10000)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(make_view, least_requests, Policy::least_requests)->Arg(10000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ringmaster

BENCHMARK_MAIN();
