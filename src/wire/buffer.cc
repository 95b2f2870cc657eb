#include "wire/buffer.h"

#include <cstring>

namespace ringmaster::wire {

void Buffer::compact() {
  if (begin_ == 0) return;
  std::memmove(bytes_.get(), bytes_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
}

std::string_view decode_in_place(http::BodyDecoder& body, Buffer& buffer) {
  const std::size_t start = buffer.begin_;
  std::size_t end = start;
  while (!buffer.empty() && !body.done() && !body.bad()) {
    const auto step = body.next(buffer.view());
    if (!step.content.empty()) {
      // Chunk framing between pieces closes up; content by length is in its place already.
      if (step.content.data() != buffer.bytes_.get() + end) {
        std::memmove(buffer.bytes_.get() + end, step.content.data(), step.content.size());
      }
      end += step.content.size();
    }
    buffer.skip(step.consumed);
  }
  return {buffer.bytes_.get() + start, end - start};
}

}  // namespace ringmaster::wire
