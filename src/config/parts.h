// The parts of load.cc: one function for each kind of table.
#pragma once

#include "config/config.h"
#include "config/reader.h"

namespace ringmaster::config {

Pool read_pool(std::string name, const toml::table& table, Faults& faults);               // load_pool.cc
void read_sources(Reader& reader, const toml::table& table, Pool& pool, Faults& faults);  // load_sources.cc: who its replicas are
Route read_route(const toml::table& table, const Config& config, Faults& faults);         // load_route.cc
void check_route_conflicts(const toml::array& tables, const std::vector<Route>& routes, Faults& faults);
Queue read_queue(std::string name, const toml::table& table, const Config& config, Faults& faults);  // load_queue.cc
void read_tasks(const toml::table& table, Tasks& tasks, Faults& faults);

// For Reader::parsed.
base::Result<void> read_endpoint(const std::string& text, Endpoint& endpoint);
// A list of networks in CIDR form.
void read_networks(Reader& reader, std::string_view key, std::vector<base::Network>& networks);
base::Result<void> read_key(const std::string& text, balance::Key& key);
base::Result<void> read_path(const std::string& text, std::string& path);
base::Result<void> read_field_name(const std::string& text, std::string& name);
bool is_own_field(std::string_view name);  // frames or routes the message: the codec's alone
bool is_field_value(std::string_view text);

// Calls read(table) for the sub-table `key`, if there is one.
template <class F>
void with_table(Reader& reader, std::string_view key, F read) {
  const toml::node* node = reader.find(key);
  if (node == nullptr) return;
  if (const toml::table* table = node->as_table()) {
    read(*table);
  } else {
    reader.faults().add(node->source(), std::string(key) + " must be a table");
  }
}

}  // namespace ringmaster::config
