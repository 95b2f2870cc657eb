// What a container writes, as Docker's stream of it has it; lines of the two outputs are not mixed.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace ringmaster::supervise {

// Docker's stream of a container without a terminal: frames of a stream's number (1: standard output, 2: standard error),
// three zeros, a length of four bytes in network order, and so many bytes of output.
class OutputFrames {
 public:
  explicit OutputFrames(std::function<void(std::string_view)> line) : line_(std::move(line)) {}
  void add(std::string_view piece) {
    frames_ += piece;
    while (!frames_.empty()) {
      if (left_ == 0) {
        if (frames_.size() < kHeaderBytes) return;
        stream_ = frames_[0] == 2 ? 1 : 0;
        for (std::size_t i = 4; i < kHeaderBytes; ++i) left_ = (left_ << 8) | static_cast<unsigned char>(frames_[i]);
        frames_.erase(0, kHeaderBytes);
        continue;
      }
      const std::size_t taken = std::min(left_, frames_.size());
      give(std::string_view(frames_).substr(0, taken));
      frames_.erase(0, taken);
      left_ -= taken;
    }
  }
  void end() {
    for (std::string& rest : rest_) {
      if (!rest.empty()) line_(std::exchange(rest, {}));
    }
  }

 private:
  static constexpr std::size_t kHeaderBytes = 8;
  static constexpr std::size_t kLineBytesMax = 8192;
  void give(std::string_view text) {
    std::string& rest = rest_[stream_];
    rest += text;
    std::size_t begin = 0;
    for (std::size_t end = rest.find('\n'); end != std::string::npos; end = rest.find('\n', begin)) {
      line_(std::string_view(rest).substr(begin, end - begin));
      begin = end + 1;
    }
    rest.erase(0, begin);
    if (rest.size() > kLineBytesMax) line_(std::exchange(rest, {}));
  }
  std::function<void(std::string_view)> line_;
  std::string frames_;
  std::size_t left_ = 0;  // of the frame
  std::size_t stream_ = 0;
  std::array<std::string, 2> rest_;  // of a line, by stream
};

}  // namespace ringmaster::supervise
