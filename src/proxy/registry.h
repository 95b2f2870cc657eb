// What the engine knows of the replicas: applies what the master tells, keeps the stable records, and makes the views
// that workers route by. On the engine's control thread.
//
// A slot always shows its latest epoch. One whose process has ended stays in its seat, marked, until its successor comes:
// so a death moves no keys between the others. One that drains leaves the view, and is remembered until it is gone.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "balance/view.h"
#include "config/config.h"
#include "link/messages.h"

namespace ringmaster::proxy {

class Registry {
 public:
  using Record = std::shared_ptr<balance::Replica>;

  // What a change means to others. All are called on the control thread.
  struct Listener {
    std::function<void(const Record&)> appeared;  // begin to probe it
    std::function<void(const Record&)> left;      // stop probing: it drains, or is gone
    std::function<void(const Record&)> exited;    // its process has ended by itself
  };

  // `cells`: this engine's counters, kCellsMax of them.
  Registry(const config::Config& config, balance::Cell* cells, Listener listener);

  void apply(const link::Snapshot& snapshot);
  void apply(const link::ReplicaState& state);

  // A view of the present membership.
  std::shared_ptr<const balance::View> view();
  const std::shared_ptr<const balance::View>& last_view() const { return last_view_; }  // what view() gave last; null before
  // Figures of a pool, the same all the time.
  const std::shared_ptr<balance::PoolStatus>& status(std::string_view pool) const;

  // Every replica of the pool, in the order of slots; then those that drain.
  std::vector<Record> replicas(std::string_view pool) const;
  Record find(std::string_view pool, std::uint32_t slot, std::uint64_t epoch) const;

 private:
  using Seats = std::map<std::uint32_t, Record>;
  Record make(const link::ReplicaState& state) const;
  void update(const Record& record, const link::ReplicaState& state);
  void leave(const Record& record);

  const config::Config& config_;
  balance::Cell* cells_;
  Listener listener_;
  std::map<std::string, Seats, std::less<>> pools_;
  std::map<std::string, std::shared_ptr<balance::PoolStatus>, std::less<>> statuses_;
  std::shared_ptr<const balance::View> last_view_;  // whose tables may be used again
  std::vector<Record> draining_;
};

}  // namespace ringmaster::proxy
