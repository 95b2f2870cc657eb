// The live tasks of one queue that wait, in the order in which they are to be taken: higher priority first, then the older.
#pragma once

#include <map>

#include "task/task.h"

namespace ringmaster::task {

// T: whatever stands for a task; the caller keeps it alive while it is in here.
template <class T>
class Pending {
 public:
  void add(const Task& task, T item) { items_.emplace(place_of(task), std::move(item)); }
  void remove(const Task& task) { items_.erase(place_of(task)); }
  const T* first() const { return items_.empty() ? nullptr : &items_.begin()->second; }
  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  // Whether it is the next one.
  bool is_first(const Task& task) const { return !items_.empty() && items_.begin()->first == place_of(task); }

 private:
  using Place = std::pair<int, std::uint64_t>;
  static Place place_of(const Task& task) { return {-task.spec.priority, task.id}; }
  std::map<Place, T> items_;
};

}  // namespace ringmaster::task
