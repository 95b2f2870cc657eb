#include "io/watch.h"

#include "io/loop.h"

namespace ringmaster::io {

Watch::Watch(Loop& loop, Handle handle, Trigger trigger, std::uint32_t readiness)
    : loop_(loop), handle_(std::move(handle)), trigger_(trigger), writing_(trigger == Trigger::edge && (readiness & kWritable) == 0), readiness_(readiness) {
  system().watch(fd(), this, trigger_, writing_);
}

Watch::~Watch() {
  CHECK(reader == nullptr && writer == nullptr && hangup == nullptr);
  // A listener is shared with the master, and its registration would outlive our descriptor. Others end with close().
  if (trigger_ == Trigger::level && !paused_) system().unwatch(fd());
}

void Watch::notify(std::uint32_t readiness) {
  if (trigger_ == Trigger::edge) readiness_ |= readiness;
  if ((readiness & (kReadable | kHangup | kBroken)) != 0 && reader != nullptr) reader->wake(Code::ok);
  if ((readiness & (kWritable | kBroken)) != 0 && writer != nullptr) writer->wake(Code::ok);
  if ((readiness & (kHangup | kBroken)) != 0 && hangup != nullptr) hangup->wake(Code::ok);
}

void Watch::not_writable() {
  readiness_ &= ~static_cast<std::uint32_t>(kWritable);
  if (!std::exchange(writing_, true)) system().rewatch(fd(), this, true);
}

void Watch::calm() {
  if (writable() && std::exchange(writing_, false)) system().rewatch(fd(), this, false);
}

void Watch::abort(Code why) {
  aborted_ = why;
  if (reader != nullptr) reader->wake(why);
  if (writer != nullptr) writer->wake(why);
}

void Watch::pause() {
  if (!std::exchange(paused_, true)) system().unwatch(fd());
}

void Watch::resume() {
  if (std::exchange(paused_, false)) system().watch(fd(), this, trigger_, false);
}

}  // namespace ringmaster::io
