#include <set>

#include "config/parts.h"
#include "http/characters.h"
#include "http/target.h"

namespace ringmaster::config {

using base::Code;
using base::Result;

namespace {

// "example.org" or "*.example.org", without a port, kept in lower case.
Result<void> read_host(const std::string& text, std::string& host) {
  const std::string_view bare = std::string_view(text).substr(text.starts_with("*.") ? 2 : 0);
  if (!http::is_authority(bare) || bare.contains('*') || (bare.contains(':') && !bare.starts_with('['))) {
    return base::fail(Code::invalid, "it must be a host name such as example.org, or *.example.org, without a port");
  }
  host = text;
  for (char& c : host) c = http::lower(c);
  if (host.ends_with('.')) host.pop_back();  // the root's, which requests' hosts are compared without
  return {};
}

// A path as requests are compared with: what is not normal already would never match.
Result<void> read_normal_path(const std::string& text, std::string& path) {
  std::string scratch;
  std::string_view normal;
  if (const auto read = read_path(text, path); !read) return read;
  if (!http::normalise_path(path, scratch, normal) || normal != path) {
    return base::fail(Code::invalid, "requests' paths are compared in their normal form, which this is not: '" + std::string(normal) + "'");
  }
  return {};
}

void read_headers(Reader& reader, std::string_view key, std::vector<std::pair<std::string, std::string>>& headers) {
  with_table(reader, key, [&](const toml::table& table) {
    for (const auto& [name, node] : table) {
      const auto value = node.value_exact<std::string>();
      std::string checked;
      if (const auto read = read_field_name(std::string(name.str()), checked); !read) reader.faults().add(name.source(), read.error().detail);
      if (!value || !is_field_value(*value)) {
        reader.faults().add(node.source(), "the value of " + std::string(name.str()) + " must be text in quotes, without control characters");
      } else {
        headers.emplace_back(name.str(), *value);
      }
    }
  });
}

// The framing and the connection are the codec's own: a route that could change them could smuggle.
void read_edits(Reader& outer, std::string_view key, http::FieldEdits& edits, Faults& faults) {
  with_table(outer, key, [&](const toml::table& table) {
    Reader reader(table, "[route." + std::string(key) + "]", faults);
    reader.texts("remove", edits.remove);
    read_headers(reader, "set", edits.set);
    read_headers(reader, "add", edits.add);
    reader.finish();
    const auto check = [&](const std::string& name) {
      if (is_own_field(name)) faults.add(table.source(), "'" + name + "' frames or routes the message and cannot be changed");
    };
    for (const std::string& name : edits.remove) check(name);
    for (const auto& [name, value] : edits.set) check(name);
    for (const auto& [name, value] : edits.add) check(name);
  });
}

void read_rate(Reader& outer, Rate& rate, Faults& faults) {
  with_table(outer, "rate", [&](const toml::table& table) {
    Reader reader(table, "[route.rate]", faults);
    reader.count("per_second", rate.per_second, 1, 1'000'000);
    if (table.get("per_second") == nullptr) faults.add(table.source(), "a rate needs per_second");
    rate.burst = std::max(1U, rate.per_second);
    reader.count("burst", rate.burst, 1, 1'000'000);
    reader.parsed("key", [&](const std::string& text) { return read_key(text, rate.key); });
    if (rate.key.kind == balance::Key::Kind::request_id)
      faults.add(table.source(), "a random key limits nothing: use source, path, header:X, cookie:X or query:X");
    reader.finish();
  });
}

void read_match(Reader& reader, const toml::table& table, Route& route, const Config& config) {
  reader.parsed("host", [&](const std::string& text) { return read_host(text, route.host); });
  reader.parsed("path", [&](const std::string& text) { return read_normal_path(text, route.path); });
  reader.parsed("prefix", [&](const std::string& text) { return read_normal_path(text, route.prefix); });
  if (!route.path.empty() && !route.prefix.empty()) reader.faults().add(table.source(), "a route has a path or a prefix, not both");
  while (route.prefix.ends_with('/')) route.prefix.pop_back();  // "/api/" and "/api" are the same prefix; "" takes everything
  read_headers(reader, "headers", route.headers);
  reader.parsed("listener", [&](const std::string& text) -> Result<void> {
    route.listener = text;
    const bool known = std::ranges::any_of(config.listeners, [&](const Listener& listener) { return base::to_string(listener.address) == text; });
    return known ? Result<void>{} : base::fail(Code::invalid, "no [[listener]] has the address " + text);
  });
}

void read_answer(Reader& reader, const toml::table& table, Route& route, const Config& config) {
  reader.text("pool", route.pool);
  reader.parsed("redirect", [&](const std::string& text) -> Result<void> {
    route.location = text;
    route.status = 302;
    return !text.empty() && is_field_value(text) && !text.contains(' ') ? Result<void>{} : base::fail(Code::invalid, "it must be a URL or a path");
  });
  reader.count("status", route.status, 200, 599);
  reader.text("body", route.body);
  reader.text("content_type", route.content_type);
  const bool answers = route.status != 0;
  const auto complain = [&](const std::string& why) { reader.faults().add(table.source(), why); };
  if (answers == !route.pool.empty()) complain("a route has either a pool, or an answer: redirect = \"…\", or status = … with a body");
  if (!route.pool.empty() && config.find_pool(route.pool) == nullptr) complain("the route's pool '" + route.pool + "' does not exist");
  if (!route.location.empty() && (route.status < 300 || route.status > 308)) complain("a redirect's status is 301, 302, 303, 307 or 308");
  if (!is_field_value(route.content_type)) complain("content_type must not have control characters");
  if ((route.status == 204 || route.status == 304) && !route.body.empty()) complain("an answer of this status has no body");
}

void read_buffering(Reader& reader, const toml::table& table, Route& route, Faults& faults) {
  static constexpr std::uint64_t kBytesMax = 64 << 20;
  reader.parsed("request_buffering", [&](const std::string& text) -> Result<void> {
    route.request_buffering = text == "memory";
    return text == "memory" || text == "off" ? Result<void>{} : base::fail(Code::invalid, "it is memory or off");
  });
  reader.bytes("request_buffer_bytes", route.request_buffer_bytes);
  if (route.request_buffer_bytes > kBytesMax) faults.add(table.source(), "request_buffer_bytes is memory for each request: at most 64MiB");
  if (route.request_buffer_bytes != 0 && !route.request_buffering) faults.add(table.source(), "request_buffer_bytes needs request_buffering = \"memory\"");
}

}  // namespace

Route read_route(const toml::table& table, const Config& config, Faults& faults) {
  Route route;
  Reader reader(table, "[[route]]", faults);
  read_match(reader, table, route, config);
  route.name = route.host + (route.path.empty() ? route.prefix + "/*" : route.path);
  reader.text("name", route.name);
  if (route.name == "default") faults.add(table.source(), "'default' is what metrics call requests that no route takes");
  if (route.name.empty() || route.name.size() > 200 || !is_field_value(route.name))
    faults.add(table.source(), "a route's name has 1 to 200 printable characters");
  read_answer(reader, table, route, config);
  reader.parsed("paths", [&](const std::string& text) -> Result<void> {
    route.paths = text == "strict" ? Paths::strict : text == "raw" ? Paths::raw : Paths::normal;
    return text == "strict" || text == "raw" || text == "normal" ? Result<void>{} : base::fail(Code::invalid, "it is strict, normal or raw");
  });
  bool strip = false;
  reader.flag("strip_prefix", strip);
  reader.parsed("replace_prefix", [&](const std::string& text) {
    route.replaces_prefix = true;
    return read_normal_path(text, route.new_prefix);
  });
  while (route.new_prefix.ends_with('/')) route.new_prefix.pop_back();
  if (strip && route.replaces_prefix) faults.add(table.source(), "strip_prefix and replace_prefix exclude each other");
  route.replaces_prefix |= strip;
  if (route.replaces_prefix && route.status != 0) faults.add(table.source(), "only what goes to a pool has its prefix stripped or replaced");
  if (route.replaces_prefix && table.get("prefix") == nullptr) faults.add(table.source(), "there is no prefix to strip or replace");
  read_edits(reader, "request_headers", route.request_fields, faults);
  read_edits(reader, "response_headers", route.response_fields, faults);
  std::uint64_t bytes = 0;
  reader.bytes("body_bytes_max", bytes);
  if (table.get("body_bytes_max") != nullptr) route.body_bytes_max = bytes;
  read_buffering(reader, table, route, faults);
  read_rate(reader, route.rate, faults);
  reader.finish();
  return route;
}

void check_route_conflicts(const toml::array& tables, const std::vector<Route>& routes, Faults& faults) {
  std::set<std::string> names;
  std::set<std::string> matches;
  for (std::size_t i = 0; i < routes.size(); ++i) {
    const Route& route = routes[i];
    if (!names.insert(route.name).second) faults.add(tables[i].source(), "the name '" + route.name + "' is given twice: give the routes names of their own");
    std::string match = route.listener + "|" + route.host + "|" + route.path + "|" + route.prefix + "|" + (route.path.empty() ? "p" : "x");
    for (const auto& [name, value] : route.headers) match.append("|").append(name).append("=").append(value);
    if (!matches.insert(match).second) faults.add(tables[i].source(), "an earlier route takes exactly the same requests");
  }
}

}  // namespace ringmaster::config
