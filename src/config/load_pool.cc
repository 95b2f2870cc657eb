#include <cmath>
#include <numeric>

#include "base/names.h"
#include "config/parts.h"
#include "http/target.h"

namespace ringmaster::config {

using base::Code;
using base::Result;
using namespace std::chrono_literals;

namespace {

Result<void> read_function(const std::string& text, bool allow_j, balance::RingFunction& function) {
  auto parsed = balance::RingFunction::parse(text, allow_j);
  if (!parsed) return std::unexpected(parsed.error());
  function = std::move(*parsed);
  return {};
}

void read_ring(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".ring]", faults);
  balance::RingSettings& ring = pool.ring;
  reader.parsed("functions", [&](const std::string& text) -> Result<void> {
    if (balance::apply_preset(text, ring)) return {};
    return base::fail(Code::invalid, "'" + text + "' is no preset; there are s1, s2, xxhash");
  });
  reader.parsed("request_function", [&](const std::string& text) { return read_function(text, false, ring.request_function); });
  reader.parsed("virtual_function", [&](const std::string& text) { return read_function(text, true, ring.virtual_function); });
  reader.parsed("probing", [&](const std::string& text) -> Result<void> {
    if (text != "linear" && text != "quadratic") return base::fail(Code::invalid, "it is linear or quadratic");
    ring.probing = text == "linear" ? balance::Probing::linear : balance::Probing::quadratic;
    return {};
  });
  reader.count("slots", ring.slots, 1, 1U << 20);
  reader.count("virtual_servers", ring.virtual_servers, 1, 1U << 16);
  reader.count("server_base", ring.server_base, 0, 1);
  reader.count("virtual_base", ring.virtual_base, 0, 1);
  reader.finish();
}

// "200", "200-399".
Result<void> read_status_range(const std::string& text, std::pair<unsigned, unsigned>& range) {
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, range.first);
  range.second = range.first;
  bool good = first.ec == std::errc{};
  if (good && first.ptr != end) {
    const auto last = *first.ptr == '-' ? std::from_chars(first.ptr + 1, end, range.second) : first;
    good = last.ec == std::errc{} && last.ptr == end;
  }
  if (good && range.first >= 100 && range.second <= 599 && range.first <= range.second) return {};
  return base::fail(Code::invalid, "'" + text + "' is no status or range of statuses, such as \"200\" or \"200-399\"");
}

void read_statuses(Reader& reader, Health& health) {
  std::vector<std::string> texts;
  reader.texts("status", texts);
  if (!texts.empty()) health.statuses.clear();
  for (const std::string& text : texts) {
    std::pair<unsigned, unsigned> range;
    if (const auto read = read_status_range(text, range); read) {
      health.statuses.push_back(range);
    } else {
      reader.faults().add(reader.source(), "status: " + read.error().detail);
    }
  }
}

// 2, or "25%".
void read_max_unavailable(Reader& reader, const toml::table& table, Health& health) {
  static constexpr std::string_view kName = "max_unavailable";
  const toml::node* node = table.get(kName);
  if (node == nullptr || node->is_integer()) {
    if (node != nullptr) health.max_unavailable_percent = false;
    reader.count(kName, health.max_unavailable, 1, 1'000'000);
    return;
  }
  reader.parsed(kName, [&](const std::string& text) -> Result<void> {
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, health.max_unavailable);
    const bool good = read.ec == std::errc{} && std::string_view(read.ptr, end) == "%" && health.max_unavailable >= 1 && health.max_unavailable <= 100;
    return good ? Result<void>{} : base::fail(Code::invalid, "it is a number of replicas, or a share such as \"25%\"");
  });
}

void read_health(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".health]", faults);
  Health& health = pool.health;
  reader.parsed("path", [&](const std::string& text) { return read_path(text, health.path); });
  reader.parsed("host", [&](const std::string& text) -> Result<void> {
    health.host = text;
    return http::is_authority(text) ? Result<void>{} : base::fail(Code::invalid, "it must be a host name");
  });
  reader.parsed("method", [&](const std::string& text) -> Result<void> {
    health.method = text;
    return text == "GET" || text == "HEAD" || text == "OPTIONS" ? Result<void>{} : base::fail(Code::invalid, "it is GET, HEAD or OPTIONS");
  });
  read_statuses(reader, health);
  reader.text("body", health.body);
  if (!health.body.empty() && health.method == "HEAD") faults.add(table.source(), "the answer to HEAD has no body to look into");
  reader.parsed("when", [&](const std::string& text) -> Result<void> {
    health.only_idle = text == "idle";
    return text == "idle" || text == "always" ? Result<void>{} : base::fail(Code::invalid, "it is always or idle");
  });
  reader.duration("interval", health.interval, 10ms);
  reader.duration("timeout", health.timeout, 1ms);
  reader.duration("kill_after", health.kill_after, 100ms);
  read_max_unavailable(reader, table, health);
  reader.count("fall", health.fall, 1, 1000);
  reader.count("rise", health.rise, 1, 1000);
  if (health.only_idle) health.panic_below_percent = 0;  // inactive means inactive (CONTRACT S4)
  reader.count("panic_below_percent", health.panic_below_percent, 0, 100);
  reader.finish();
}

void read_ejection(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".eject]", faults);
  reader.count("errors", pool.ejection.errors, 0, 1'000'000);
  reader.duration("duration", pool.ejection.duration, 10ms);
  reader.count("most_percent", pool.ejection.most_percent, 0, 100);
  reader.finish();
}

void read_retry(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".retry]", faults);
  Retry& retry = pool.retry;
  reader.count("tries", retry.tries, 1, 3);
  reader.count("budget_percent", retry.budget_percent, 0, 100);
  reader.count("budget_per_second", retry.budget_per_second, 0, 1'000'000);
  reader.duration("try_timeout", retry.try_timeout, 0ms);
  reader.duration("timeout", retry.timeout, 0ms);
  reader.parsed("deadline_header", [&](const std::string& text) -> Result<void> {
    if (is_own_field(text)) return base::fail(Code::invalid, "'" + text + "' frames or routes the message");
    return read_field_name(text, retry.deadline_header);
  });
  reader.count("hedge_percentile", retry.hedge_percentile, 0, 99);
  if (!retry.deadline_header.empty() && retry.timeout == Duration::zero()) {
    faults.add(table.source(), "a deadline_header needs a timeout: there is no deadline to tell of");
  }
  reader.finish();
}

void read_sticky(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".sticky]", faults);
  reader.parsed("cookie", [&](const std::string& text) { return read_field_name(text, pool.sticky.cookie); });
  reader.text("secret", pool.sticky.secret);
  reader.duration("max_age", pool.sticky.max_age, 0ms);
  if (pool.sticky.cookie.empty()) faults.add(table.source(), "a sticky pool needs a cookie, such as cookie = \"rm_seat\"");
  if (pool.sticky.secret.size() < 16) faults.add(table.source(), "secret must be at least 16 characters: whoever guesses it can choose a replica");
  reader.finish();
}

void read_weights(Reader& reader, const toml::table& table, Pool& pool) {
  using balance::Policy;
  reader.counts("weights", pool.weights, 1, 1000);
  const bool differ = std::ranges::any_of(pool.weights, [](unsigned weight) { return weight != 1; });
  if (!differ || (pool.policy != Policy::round_robin && pool.policy != Policy::first_available)) return;
  reader.faults().add(table.get("weights")->source(), "policy " + std::string(balance::name(pool.policy)) + " knows no weights" +
                                                          (pool.policy == Policy::round_robin ? "; weighted does" : ""));
}

void read_policy(Reader& reader, const toml::table& table, Pool& pool) {
  reader.parsed("policy", [&](const std::string& text) -> Result<void> {
    std::string known;
    for (unsigned i = 0; i < balance::kPolicies; ++i) {
      const auto policy = static_cast<balance::Policy>(i);
      if (text == balance::name(policy)) {
        pool.policy = policy;
        return {};
      }
      known += (known.empty() ? "" : ", ") + std::string(balance::name(policy));
    }
    return base::fail(Code::invalid, "'" + text + "' is no policy; there are " + known);
  });
  if (balance::is_hashing(pool.policy) && pool.key.kind == balance::Key::Kind::none) {
    reader.faults().add(table.get("policy")->source(), "this policy needs a key, such as key = \"request_id\" or \"header:X-User\"");
  }
  static constexpr unsigned kRendezvousMax = 1024;
  if (pool.policy == balance::Policy::rendezvous && pool.replicas_max > kRendezvousMax) {
    reader.faults().add(table.get("replicas_max")->source(), "rendezvous looks at every replica for every request: at most 1024; maglev does more");
  }
}

void read_balancing(Reader& reader, const toml::table& table, Pool& pool, Faults& faults) {
  reader.parsed("key", [&](const std::string& text) { return read_key(text, pool.key); });
  if (pool.key.kind != balance::Key::Kind::none) pool.policy = balance::Policy::rendezvous;
  read_policy(reader, table, pool);
  read_weights(reader, table, pool);
  double bound = pool.policy == balance::Policy::rendezvous || pool.policy == balance::Policy::maglev ? 1.25 : 0;
  reader.number("bounded_load", bound, 0, 1000);
  if (bound != 0 && (bound < 1 || !balance::is_hashing(pool.policy))) {
    const char* why =
        bound < 1 ? "bounded_load is at least 1, or 0 for none" : "bounded_load is for the hashing policies: the others spread load by themselves";
    faults.add(table.get("bounded_load")->source(), why);
  }
  pool.bound_thousandths = static_cast<unsigned>(std::lround(bound * 1000));
  balance::apply_preset("s1", pool.ring);
  with_table(reader, "ring", [&](const toml::table& ring) { read_ring(ring, pool, faults); });
  const balance::RingSettings& ring = pool.ring;
  std::vector<unsigned> slots(pool.replicas);
  std::iota(slots.begin(), slots.end(), 1U);
  if (!pool.fits_ring(slots)) {
    faults.add(table.source(), std::to_string(pool.replicas) + " replicas with " + std::to_string(ring.virtual_servers) +
                                   " virtual servers each (times their weights) do not fit " + std::to_string(ring.slots) + " slots");
  }
  with_table(reader, "sticky", [&](const toml::table& sticky) { read_sticky(sticky, pool, faults); });
}

void read_capacity(Reader& reader, Pool& pool) {
  reader.count("max_in_flight", pool.max_in_flight, 0, 1'000'000);
  reader.count("queue_length", pool.queue_length, 0, 1'000'000);
  reader.duration("queue_wait", pool.queue_wait, 0ms);
  reader.duration("slow_start", pool.slow_start, 0ms);
  reader.count("status_max", pool.status_max, 599, 999);
  reader.count("fields_max", pool.fields_max, 1, http::kFieldsMax);
  reader.parsed("proxy_protocol", [&](const std::string& text) -> Result<void> {
    pool.proxy_protocol = text == "v1" ? ProxyProtocol::v1 : text == "v2" ? ProxyProtocol::v2 : ProxyProtocol::none;
    return text == "off" || text == "v1" || text == "v2" ? Result<void>{} : base::fail(Code::invalid, "it is off, v1 or v2");
  });
}

}  // namespace

static void read_task_share(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".tasks]", faults);
  reader.count("per_replica", pool.tasks_max, 0, 1'000'000);
  reader.count("reserved", pool.tasks_reserved, 0, 1'000'000);
  if (pool.tasks_reserved > 0 && pool.tasks_reserved >= pool.max_in_flight) {
    faults.add(table.source(), "reserved is a part of max_in_flight, and must be less");
  }
  reader.finish();
}

Pool read_pool(std::string name, const toml::table& table, Faults& faults) {
  Pool pool;
  pool.name = std::move(name);
  Reader reader(table, "[pool." + pool.name + "]", faults);
  if (!base::is_pool_name(pool.name)) {
    faults.add(table.source(), "'" + pool.name + "' is no pool name: letters, digits, '_' and '-', at most 32");
  }
  read_sources(reader, table, pool, faults);
  read_balancing(reader, table, pool, faults);
  read_capacity(reader, pool);
  with_table(reader, "tasks", [&](const toml::table& tasks) { read_task_share(tasks, pool, faults); });
  with_table(reader, "retry", [&](const toml::table& retry) { read_retry(retry, pool, faults); });
  with_table(reader, "eject", [&](const toml::table& eject) { read_ejection(eject, pool, faults); });
  with_table(reader, "health", [&](const toml::table& health) { read_health(health, pool, faults); });
  reader.finish();
  return pool;
}

}  // namespace ringmaster::config
