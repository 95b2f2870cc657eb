#include "config/load.h"

#include <gtest/gtest.h>

#include <fstream>

namespace ringmaster::config {
namespace {

using namespace std::chrono_literals;

const std::string good_text = R"(
state_dir = "/tmp/state"
[[listener]]
address = "127.0.0.1:5000"
pool = "web"
classic = true
[pool.web]
command = ["server", "{socket}"]
replicas = 3
key = "request_id"
)";

Config good(const std::string& text) {
  auto parsed = parse("t.toml", text);
  if (auto* faults = std::get_if<std::vector<Fault>>(&parsed)) {
    ADD_FAILURE() << to_string("t.toml", *faults);
    return {};
  }
  return std::get<Config>(parsed);
}

std::string faults(const std::string& text) {
  auto parsed = parse("t.toml", text);
  if (auto* found = std::get_if<std::vector<Fault>>(&parsed)) return to_string("t.toml", *found);
  return "no fault";
}

TEST(Config, ReadsAWholeFile) {
  const Config config = good(good_text);
  ASSERT_EQ(config.pools.size(), 1U);
  EXPECT_EQ(config.pools[0].policy, balance::Policy::rendezvous);
  EXPECT_EQ(config.pools[0].initial_name(2), "Server 2");
  EXPECT_TRUE(config.pools[0].on_unix_socket());
  EXPECT_EQ(base::to_string(config.admin), "127.0.0.1:5001");
  EXPECT_EQ(config.listeners[0].pool, "web");
}

TEST(Config, ReadsTheRing) {
  const Config config = good(good_text + R"(policy = "ring"
[pool.web.ring]
functions = "s2"
server_base = 0
request_function = "i*i + 1"
[pool.web.health]
path = "/heartbeat"
interval = "250ms"
)");
  const balance::RingSettings& ring = config.pools[0].ring;
  EXPECT_EQ(ring.probing, balance::Probing::quadratic);
  EXPECT_EQ(ring.server_base, 0U);
  EXPECT_EQ(ring.request_function.polynomial.text(), "i*i + 1");
  EXPECT_EQ(config.pools[0].health.interval, 250ms);
}

TEST(Config, TellsAllFaultsAtOnceWithTheirPlaces) {
  EXPECT_EQ(faults(R"(colour = "blue"
[[listener]]
address = "127.0.0.1"
pool = "wbe"
[pool.web]
replicas = -1
policy = "rendevous"
grace = "5"
[pool.web.ring]
request_function = "i + j"
)"),
            "t.toml:1:1: unknown setting 'colour' in the file; known here: state_dir, engine_user, engine_timeout, docker, workers, connections_max, "
            "connections_per_address_max, body_rate_min, response_rate_min, linger_bytes_max, "
            "timeouts, admin, pool, listener, route, access_log, trace, tasks, queue\n"
            "t.toml:3:11: address: '127.0.0.1' is no address: write 127.0.0.1:5000, [::1]:5000 or unix:/path\n"
            "t.toml:4:8: the listener's pool 'wbe' does not exist; there is: web\n"
            "t.toml:5:1: [pool.web] needs a command: what starts one of its servers; or an image, servers, or [pool.web.register]\n"
            "t.toml:6:12: replicas must be a whole number from 0 to 56\n"
            "t.toml:7:10: policy: 'rendevous' is no policy; there are rendezvous, ring, maglev, least_requests, peak_ewma, round_robin, weighted, random, "
            "first_available\n"
            "t.toml:8:9: grace must be a duration such as \"250ms\", \"5s\" or \"1m\"\n"
            "t.toml:10:20: request_function: a number, i or '(' is needed at character 5\n");
}

TEST(Config, RefusesWhatWouldBeDangerousOrAmbiguous) {
  const auto has = [](const std::string& text, const std::string& part) { EXPECT_NE(faults(text).find(part), std::string::npos) << faults(text); };
  has("[pool.web]\ncommand = [\"x\"]\n[[listener]]\naddress = \"0.0.0.0:1\"\npool = \"web\"\nclassic = true\n", "classic_from");
  has(good_text + "[admin]\naddress = \"0.0.0.0:5001\"\n", "the admin address must be a loopback address");
  has(good_text + "names = [\"A\", \"A\"]\n", "the name 'A' is given twice");
  has(good_text + "names = [\"../x\"]\n", "is no replica name");
  has(good_text + "[admin]\naddress = \"127.0.0.1:5000\"\n", "is used twice");
  has(good_text + "policy = \"ring\"\n[pool.web.ring]\nvirtual_servers = 200\n", "do not fit 512 slots");
  has("[pool.web]\ncommand = [\"x\"]\npolicy = \"ring\"\n", "needs a key");
  has("x = [", "t.toml:1:");
}

TEST(Reference, ShowsEverySettingThereIs) {
  std::ifstream file(RINGMASTER_SOURCE_DIR "/config/reference.toml");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  ASSERT_FALSE(text.empty());
  EXPECT_TRUE(std::holds_alternative<Config>(parse("reference.toml", text)));
  EXPECT_EQ(unmentioned_settings(text), std::vector<std::string>{});
  // The test can fail: without a line, its setting is missed.
  std::string shorter = text;
  shorter.replace(shorter.find("hedge_percentile"), 16, "# gone          ");
  EXPECT_EQ(unmentioned_settings(shorter), std::vector<std::string>{"[pool.*.retry] hedge_percentile"});
}

TEST(Routes, HaveTheirFaultsNamed) {
  const std::string pool = "[[listener]]\naddress = \"127.0.0.1:1\"\npool = \"web\"\n[pool.web]\ncommand = [\"x\", \"{port}\"]\n[[route]]\n";
  const auto first = [&](const std::string& route) {
    const auto parsed = parse("t", pool + route);
    const auto* faults = std::get_if<std::vector<Fault>>(&parsed);
    return faults == nullptr ? std::string() : faults->front().message;
  };
  EXPECT_EQ(first("prefix = \"/a\"\npool = \"web\""), "");
  EXPECT_EQ(first("prefix = \"/a\""), "a route has either a pool, or an answer: redirect = \"…\", or status = … with a body");
  EXPECT_EQ(first("prefix = \"/a\"\npath = \"/b\"\npool = \"web\""), "a route has a path or a prefix, not both");
  EXPECT_EQ(first("path = \"/a/../b\"\npool = \"web\""), "path: requests' paths are compared in their normal form, which this is not: '/b'");
  EXPECT_EQ(first("host = \"a*b.org\"\npool = \"web\""), "host: it must be a host name such as example.org, or *.example.org, without a port");
  EXPECT_EQ(first("path = \"/a\"\npool = \"web\"\nstrip_prefix = true"), "there is no prefix to strip or replace");
  EXPECT_EQ(first("pool = \"web\"\nrequest_headers = {set = {Content-Length = \"1\"}}"), "'Content-Length' frames or routes the message and cannot be changed");
  EXPECT_EQ(first("pool = \"web\"\nrequest_headers = {set = {X = \"a\\r\\nB: c\"}}"), "the value of X must be text in quotes, without control characters");
  EXPECT_EQ(first("pool = \"web\"\nrate = {per_second = 1, key = \"request_id\"}"),
            "a random key limits nothing: use source, path, header:X, cookie:X or query:X");
}

TEST(Sources, HaveTheirFaultsNamed) {
  const auto first = [&](const std::string& pool) {
    const auto parsed = parse("t", "[[listener]]\naddress = \"127.0.0.1:1\"\npool = \"web\"\nclassic = true\n[pool.web]\n" + pool);
    const auto* faults = std::get_if<std::vector<Fault>>(&parsed);
    return faults == nullptr ? std::string() : faults->front().message;
  };
  EXPECT_EQ(first("image = \"x\""), "");
  EXPECT_EQ(first("servers = [\"10.0.0.7:80\", \"[fd00::7]:80\", \"app.example.org:80\"]"), "");
  EXPECT_EQ(first("[pool.web.register]"), "");
  EXPECT_EQ(first("image = \"x\"\ncommand = [\"y\"]\nreplicas = 3\ncontainers = 1\nservers = [\"a:1\"]\n[pool.web.register]"), "");
  EXPECT_EQ(first("image = \"x\"\ncommand = [\"y\"]"), "with both a command and an image, say how many of the replicas are containers = N");
  EXPECT_EQ(first("image = \"x\"\ncontainers = 1"), "containers = N is for pools that have both a command and an image");
  EXPECT_EQ(first("command = [\"y\"]\n[pool.web.container]\nport = 1"), "there is no image to make containers of");
  EXPECT_EQ(first("image = \"x\"\nnames = [\"a b\"]"), "'a b' is no container name: at least two characters, without spaces");
  EXPECT_EQ(first("image = \"x\"\n[pool.web.container]\nmounts = [\"relative/path:/x\"]"),
            "'relative/path:/x' is no mount: write volume:/path or /folder/here:/path, with :ro behind for read-only");
  EXPECT_EQ(first("image = \"x\"\n[pool.web.container]\nnetwork = \"host\""),
            "a container is reached over a network of its own: name one, such as \"ringmaster\"");
  EXPECT_EQ(first("image = \"x\"\n[pool.web.container]\nreach = \"magic\""), "reach: it is address or published");
  EXPECT_EQ(first("image = \"x\"\n[pool.web.container]\nsocket_volume = \"v\""), "there is no {socket} in the container's command");
  EXPECT_EQ(first("image = \"x\"\n[pool.web.container]\ncommand = [\"{ringmaster}\"]"), "{ringmaster} is this program, which a container does not have");
  EXPECT_EQ(first("servers = [\"10.0.0.7\"]"), "'10.0.0.7' is no server: write 10.0.0.7:80, [fd00::7]:80 or name:80");
  EXPECT_EQ(first("servers = [\"http://a:80\"]"), "'http://a:80' is no server: write 10.0.0.7:80, [fd00::7]:80 or name:80");
  EXPECT_EQ(first("servers = [\"a:1\"]\nreplicas = 1"), "there is neither a command nor an image to start them by");
  EXPECT_EQ(first("[pool.web.register]\ntoken = \"short\""), "token must be at least 16 characters: whoever guesses it gets traffic");
}

TEST(Sources, SayWhatSitsInWhichSlotAtFirst) {
  const Config config = good(good_text + "image = \"x\"\ncontainers = 1\n");
  const Pool& pool = config.pools[0];
  EXPECT_EQ(pool.initial_origin(2), balance::Origin::process);
  EXPECT_EQ(pool.initial_origin(3), balance::Origin::container);
  EXPECT_EQ(pool.initial_name(3), "Server3");
  EXPECT_EQ(good(good_text).pools[0].initial_name(3), "Server 3");
}

TEST(Queues, HaveTheirFaultsNamed) {
  const std::string pool = "[[listener]]\naddress = \"127.0.0.1:1\"\npool = \"web\"\n[pool.web]\ncommand = [\"x\", \"{port}\"]\n";
  const auto first = [&](const std::string& rest) {
    const auto parsed = parse("t", pool + rest);
    const auto* faults = std::get_if<std::vector<Fault>>(&parsed);
    return faults == nullptr ? std::string() : faults->front().message;
  };
  EXPECT_EQ(first("[queue.a]\npool = \"web\""), "");
  EXPECT_EQ(first("[queue.a]\npool = \"wbe\""), "there is no pool 'wbe'");
  EXPECT_EQ(first("[queue.\"a b\"]"), "'a b' is no queue name: letters, digits, '_' and '-', at most 32");
  EXPECT_EQ(first("[queue.a]\nadmission = \"now\""), "admission \"now\" needs a pool: nobody knows when a pull worker comes");
  EXPECT_EQ(first("[queue.a]\npolicy = \"ring\""), "policy: 'ring' is no policy for tasks; there are first_available, least_requests, round_robin");
  EXPECT_EQ(first("[queue.a]\ntypes = [\"a b\"]"), "'a b' is no type: letters, digits, '_' and '-', at most 32");
  EXPECT_EQ(first("max_in_flight = 2\n[pool.web.tasks]\nreserved = 2"), "reserved is a part of max_in_flight, and must be less");
  EXPECT_EQ(first("proxy_protocol = \"v1\"\n[queue.a]\npool = \"web\""), "tasks are offered without a PROXY header, which the servers of pool 'web' expect");
  EXPECT_EQ(first("[tasks]\ncallbacks = [\"http://127.0.0.1:1/\"]"), "callbacks are signed: callback_secret needs 16 characters or more");
  EXPECT_EQ(first("[tasks]\ncallbacks = [\"https://x/\"]\ncallback_secret = \"0123456789abcdef\""), "'https://x/' is not of the form http://host:port/path");
}

TEST(Queues, AreInTheOrderOfTheFile) {
  const std::string pool = "[[listener]]\naddress = \"127.0.0.1:1\"\npool = \"web\"\n[pool.web]\ncommand = [\"x\", \"{port}\"]\n";
  const auto names = [](const std::string& text) {
    std::string all;
    const auto parsed = parse("t", text);
    for (const Queue& queue : std::get<Config>(parsed).queues) all += queue.name;
    return all;
  };
  EXPECT_EQ(names(pool + "[queue.b]\n[queue.a]\n"), "ba");
  EXPECT_EQ(names("queue = {d = {}, c = {}}\n" + pool), "dc");
}

}  // namespace
}  // namespace ringmaster::config
