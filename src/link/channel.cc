#include "link/channel.h"

#include <cstring>

namespace ringmaster::link {

using base::Code;
using base::Result;

static constexpr std::size_t kInlineBytesMax = 32 * 1024;  // larger messages travel in shared memory
static constexpr std::size_t kOutboxMax = 256;
static constexpr std::string_view kInMemory = "memory";  // "the message is in the last descriptor"

Channel::Channel(io::Loop& loop, io::Handle socket) : watch_(loop, std::move(socket), io::Trigger::edge, io::kWritable), buffer_(kInlineBytesMax + 1) {}

bool Channel::transmit(const std::string& text, std::span<const int> descriptors) {
  if (!watch_.writable()) return false;
  std::vector<int> all(descriptors.begin(), descriptors.end());
  std::string_view bytes = text;
  io::Handle memory;
  if (text.size() > kInlineBytesMax) {
    auto created = watch_.system().create_memory(text.size());
    if (!created) return false;
    const auto mapping = watch_.system().map(created->fd());
    if (!mapping) return false;
    std::memcpy(mapping->memory.get(), text.data(), text.size());
    memory = std::move(*created);
    all.push_back(memory.fd());
    bytes = kInMemory;
  }
  const io::Transfer sent = watch_.system().send_message(watch_.fd(), bytes, all);
  if (sent.would_block()) watch_.not_writable();
  return sent.count >= 0;
}

bool Channel::send(const Message& message, std::span<const int> descriptors) {
  if (outbox_.empty() && transmit(encode(message), descriptors)) return true;
  lost_ = true;
  stuck_.notify();
  return false;
}

bool Channel::deliver(const Message& message) {
  std::string text = encode(message);
  if (outbox_.empty() && transmit(text, {})) return true;
  if (outbox_.size() == kOutboxMax) return false;
  outbox_.push_back(std::move(text));
  stuck_.notify();
  return true;
}

io::Async<Result<Received>> Channel::receive() {
  while (true) {
    const Code ready = co_await watch_.until_readable();
    if (ready != Code::ok) co_return base::fail(ready);
    std::vector<io::Handle> descriptors;
    const io::Transfer got = watch_.system().receive_message(watch_.fd(), buffer_, descriptors);
    if (got.would_block()) {
      if (watch_.hung_up()) co_return base::fail(Code::closed);
      watch_.not_readable();
      continue;
    }
    if (got.count <= 0) co_return base::fail(Code::closed);
    co_return unpack({buffer_.data(), static_cast<std::size_t>(got.count)}, std::move(descriptors));
  }
}

Result<Received> Channel::unpack(std::string_view text, std::vector<io::Handle> descriptors) {
  io::Mapping mapping;
  if (text == kInMemory) {
    if (descriptors.empty()) return base::fail(Code::invalid, "a message without its memory");
    auto mapped = watch_.system().map(descriptors.back().fd());
    if (!mapped) return std::unexpected(mapped.error());
    mapping = std::move(*mapped);
    descriptors.pop_back();
    text = mapping.text();
  }
  auto message = decode(text);
  if (!message) return std::unexpected(message.error());
  return Received{std::move(*message), std::move(descriptors)};
}

io::Async<void> Channel::pump(std::function<void()> recovered) {
  io::Loop& loop = watch_.loop();
  while (true) {
    if (outbox_.empty() && !lost_) {
      const Code woken = co_await stuck_.wait(loop);
      if (woken == Code::cancelled) co_return;
    }
    const Code ready = co_await watch_.until_writable();
    if (ready != Code::ok || watch_.hung_up()) co_return;
    while (!outbox_.empty() && transmit(outbox_.front(), {})) outbox_.pop_front();
    if (outbox_.empty() && lost_) {
      lost_ = false;
      recovered();  // may lose again: then round again
    }
    if ((outbox_.empty() && !lost_) || !watch_.writable()) continue;
    // It failed for another reason than a full socket: no descriptors, say. Not again at once.
    const Code slept = co_await loop.sleep(std::chrono::milliseconds(10));
    if (slept == Code::cancelled) co_return;
  }
}

}  // namespace ringmaster::link
