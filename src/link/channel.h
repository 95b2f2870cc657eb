// One end of the link: messages with descriptors over a SOCK_SEQPACKET pair.
//
// send() never waits. When the other side does not read, state is dropped and `lost` remembered: once there is room again
// the owner sends a whole Snapshot (or all of its Health). Answers to commands must arrive and are few, so they wait in a
// bounded outbox instead.
#pragma once

#include <deque>
#include <functional>

#include "io/loop.h"
#include "io/watch.h"
#include "link/messages.h"

namespace ringmaster::link {

struct Received {
  Message message;
  std::vector<io::Handle> descriptors;
};

class Channel {
 public:
  Channel(io::Loop& loop, io::Handle socket);

  // State that a later message repeats. False: there was no room, nothing was sent, and `recovered` will be called.
  bool send(const Message& message, std::span<const int> descriptors = {});
  // What must arrive: kept, in order, until there is room. False: the outbox is full, too.
  bool deliver(const Message& message);

  // Awaits the next message. Errors: closed (the other side has ended), cancelled; invalid, for one that is malformed.
  io::Async<base::Result<Received>> receive();

  // Runs until cancelled: flushes the outbox, and calls `recovered` once after state was lost and there is room again.
  io::Async<void> pump(std::function<void()> recovered);

 private:
  bool transmit(const std::string& text, std::span<const int> descriptors);
  base::Result<Received> unpack(std::string_view text, std::vector<io::Handle> descriptors);

  io::Watch watch_;
  std::vector<char> buffer_;
  std::deque<std::string> outbox_;
  bool lost_ = false;
  io::Signal stuck_;
};

}  // namespace ringmaster::link
