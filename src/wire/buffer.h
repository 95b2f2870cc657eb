// A fixed window of bytes, from a per-thread pool: what is read from a stream and parsed in place.
//
//   ┌──────────┬───────────────┬──────────────┐
//   │ consumed │  view()       │  space()     │   fixed: views into it stay good until it is consumed or compacted
//   └──────────┴───────────────┴──────────────┘
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "http/body.h"

namespace ringmaster::wire {

class Buffer {
 public:
  // Room for the largest head and as much body again. The odd amount on top spreads buffers over the cache's sets.
  static constexpr std::size_t kBytes = 32 * 1024 + 192;

  Buffer() : bytes_(new char[kBytes]) {}

  std::string_view view() const { return {bytes_.get() + begin_, end_ - begin_}; }
  std::span<char> space() { return {bytes_.get() + end_, kBytes - end_}; }
  bool empty() const { return begin_ == end_; }

  void add(std::size_t count) { end_ += count; }
  void skip(std::size_t count) { begin_ += count; }  // the bytes stay where they are until space() is used again
  std::size_t position() const { return begin_; }
  // With nothing left to read: what is added next goes to `position`, over what stood there.
  void rewind(std::size_t position) { begin_ = end_ = position; }
  // Empty, and with its memory, should it have been released.
  void clear() {
    begin_ = end_ = 0;
    if (bytes_ == nullptr) bytes_.reset(new char[kBytes]);
  }
  void release() { bytes_.reset(); }  // the memory; clear() before it is used again
  // Moves what is left to the front. Views into it are lost.
  void compact();

 private:
  friend std::string_view decode_in_place(http::BodyDecoder&, Buffer&);
  std::unique_ptr<char[]> bytes_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

// Decodes all that `buffer` holds; the content is moved together, in place, and returned. It stays valid until the buffer
// is rewound. What follows the body's end is left in the buffer.
std::string_view decode_in_place(http::BodyDecoder& body, Buffer& buffer);

// Objects that are costly to make, kept for the next user. Not shared between threads.
template <class T>
class ObjectPool {
 public:
  std::unique_ptr<T> take() {
    if (idle_.empty()) return std::make_unique<T>();
    std::unique_ptr<T> object = std::move(idle_.back());
    idle_.pop_back();
    return object;
  }
  void put(std::unique_ptr<T> object) {
    static constexpr std::size_t kIdleMax = 1024;
    if (idle_.size() < kIdleMax) idle_.push_back(std::move(object));
  }

 private:
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace ringmaster::wire
