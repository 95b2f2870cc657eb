#include "proxy/registry.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"

namespace ringmaster::proxy {

using balance::Phase;
using link::State;

Registry::Registry(const config::Config& config, balance::Cell* cells, Listener listener) : config_(config), cells_(cells), listener_(std::move(listener)) {
  for (const config::Pool& pool : config.pools) {
    pools_[pool.name];
    statuses_[pool.name] = std::make_shared<balance::PoolStatus>();
  }
}

Registry::Record Registry::make(const link::ReplicaState& state) const {
  CHECK(state.cell < balance::kCellsMax);
  auto record = std::make_shared<balance::Replica>();
  record->pool = state.pool;
  record->name = state.name;
  record->slot = state.slot;
  record->epoch = state.epoch;
  record->endpoint = state.endpoint;
  record->cell_index = state.cell;
  record->cell = &cells_[state.cell];
  record->requests_before = record->cell->requests.load();
  record->failures_before = record->cell->failures.load();
  record->status = statuses_.find(state.pool)->second;
  if (const config::Pool* settings = config_.find_pool(state.pool)) record->weight = settings->weight(state.slot);
  record->origin = state.origin;
  record->container = state.container;
  record->set_phase(state.state == State::running && state.healthy ? Phase::ready : Phase::starting);
  return record;
}

void Registry::update(const Record& record, const link::ReplicaState& state) {
  record->pid = state.pid;
  if (state.state == State::backing_off) {
    record->set_phase(Phase::backing_off);
  } else {
    record->change_phase(Phase::backing_off, Phase::starting);
  }
}

void Registry::leave(const Record& record) {
  record->set_phase(Phase::draining);
  record->set_seated(false);
  draining_.push_back(record);
  pools_[record->pool].erase(record->slot);
  listener_.left(record);
}

void Registry::apply(const link::ReplicaState& state) {
  const auto pool = pools_.find(state.pool);
  if (pool == pools_.end()) return;
  Seats& seats = pool->second;
  const auto seat = seats.find(state.slot);
  const Record current = seat == seats.end() ? nullptr : seat->second;
  const bool is_current = current && current->epoch == state.epoch;
  // A container's address is known once it runs: then the record, which workers read, is made anew.
  const bool found = is_current && current->endpoint.family == base::Endpoint::Family::none && state.endpoint != current->endpoint;
  if (state.state == State::stopped) {
    if (is_current && state.exited) {
      current->mark_exited();
      listener_.left(current);
      listener_.exited(current);
      return;
    }
    if (is_current) leave(current);
    std::erase_if(draining_, [&](const Record& r) { return r->pool == state.pool && r->slot == state.slot && r->epoch == state.epoch; });
    return;
  }
  if (state.state == State::draining) {
    if (is_current) leave(current);
    return;
  }
  if (is_current && !found) {
    update(current, state);
    return;
  }
  if (current && current->epoch > state.epoch) return;         // an older epoch cannot come back
  if (current && !current->exited()) listener_.left(current);  // a rest that is over
  if (current) current->set_seated(false);
  const Record record = make(state);
  update(record, state);
  record->set_seated(true);
  seats[state.slot] = record;
  listener_.appeared(record);
}

void Registry::apply(const link::Snapshot& snapshot) {
  const auto named = [&](const balance::Replica& r) {
    return std::ranges::any_of(snapshot.replicas, [&](const link::ReplicaState& s) { return s.pool == r.pool && s.slot == r.slot && s.epoch == r.epoch; });
  };
  std::vector<Record> gone;
  for (const auto& [name, seats] : pools_) {
    for (const auto& [slot, record] : seats) {
      if (!named(*record)) gone.push_back(record);
    }
  }
  for (const link::ReplicaState& state : snapshot.replicas) apply(state);
  for (const Record& record : gone) {
    const auto seat = pools_[record->pool].find(record->slot);
    if (seat != pools_[record->pool].end() && seat->second == record) leave(record);
  }
  std::erase_if(draining_, [&](const Record& record) { return !named(*record); });
}

const std::shared_ptr<balance::PoolStatus>& Registry::status(std::string_view pool) const { return statuses_.find(pool)->second; }

std::shared_ptr<const balance::View> Registry::view() {
  auto view = std::make_shared<balance::View>();
  for (const config::Pool& settings : config_.pools) {
    balance::PoolView& pool = view->pools.emplace_back();
    pool.name = settings.name;
    pool.policy = settings.policy;
    pool.key = settings.key;
    pool.max_in_flight = settings.max_in_flight;
    pool.tasks_max = settings.tasks_max;
    pool.tasks_reserved = settings.tasks_reserved;
    pool.bound_thousandths = settings.bound_thousandths;
    pool.slow_start = settings.slow_start;
    pool.panic_below_percent = settings.health.panic_below_percent;
    pool.status = status(settings.name);
    for (const auto& [slot, record] : pools_.find(settings.name)->second) pool.replicas.push_back(record);
    const balance::PoolView* before = last_view_ ? last_view_->find(settings.name) : nullptr;
    const auto prepared = balance::prepare(pool, settings.ring, before);
    if (!prepared) {  // the master refuses such an /add; if one slips through, requests still have to go somewhere
      base::log::error("pool '{}': {}; requests are spread by rendezvous instead", pool.name, base::describe(prepared.error()));
      pool.policy = balance::Policy::rendezvous;
      CHECK(balance::prepare(pool, settings.ring, nullptr).has_value());
    }
  }
  last_view_ = view;
  return view;
}

std::vector<Registry::Record> Registry::replicas(std::string_view pool) const {
  std::vector<Record> all;
  if (const auto seats = pools_.find(pool); seats != pools_.end()) {
    for (const auto& [slot, record] : seats->second) all.push_back(record);
  }
  for (const Record& record : draining_) {
    if (record->pool == pool) all.push_back(record);
  }
  return all;
}

Registry::Record Registry::find(std::string_view pool, std::uint32_t slot, std::uint64_t epoch) const {
  for (const Record& record : replicas(pool)) {
    if (record->slot == slot && record->epoch == epoch) return record;
  }
  return nullptr;
}

}  // namespace ringmaster::proxy
