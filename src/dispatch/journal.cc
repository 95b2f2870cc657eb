#include "dispatch/journal.h"

#include "base/check.h"

namespace ringmaster::dispatch {

// A batch is bounded so that the first in it does not wait for too many others.
static constexpr std::size_t kBatchMax = 2000;

Journal::Journal(io::Loop& loop, Store& store) : loop_(loop), store_(store), writer_(loop.system().start_loop()) {}

Journal::~Journal() {
  CHECK(waiting_.empty() && batch_.empty());
  writer_->loop().stop();
}

void Journal::add(Commit& commit) {
  waiting_.push_back(&commit);
  if (batch_.empty()) begin_batch();
}

void Journal::begin_batch() {
  const std::size_t count = std::min(waiting_.size(), kBatchMax);
  batch_.assign(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count));
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count));
  writes_.clear();
  for (const Commit* commit : batch_) writes_.push_back(&commit->write_);
  writer_->loop().post([this] {
    io::System& system = writer_->loop().system();
    const base::Time began = system.now();
    const Result<void> result = store_.commit(writes_);
    loop_.post([this, result, took = system.now() - began] { end_batch(result, took); });
  });
}

void Journal::end_batch(const Result<void>& result, base::Duration took) {
  ++figures_.commits;
  figures_.writes += batch_.size();
  figures_.failures += result ? 0 : 1;
  figures_.busy += took;
  const std::vector<Commit*> ended = std::exchange(batch_, {});
  if (!waiting_.empty()) begin_batch();
  for (Commit* commit : ended) {
    commit->result_ = result;
    commit->wake(Code::ok);
  }
}

io::Async<Result<std::size_t>> Journal::sweep(Retention retention, Millis now, std::size_t most) {
  Result<std::size_t> result = 0;
  auto swept = loop_.elsewhere(writer_->loop(), [&] { result = store_.sweep(retention, now, most); });
  co_await swept;
  co_return result;
}

}  // namespace ringmaster::dispatch
