// The last lines that the replicas of a slot have written, for those who ask what became of one.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace ringmaster::supervise {

class OutputLog {
 public:
  static constexpr std::size_t kBytesMax = 64 << 10;

  // `number` grows from line to line, over all logs.
  void add(std::uint64_t number, const std::string& name, std::string_view text) {
    lines_.push_back({number, name, std::string(text)});
    bytes_ += text.size();
    while (bytes_ > kBytesMax) {
      bytes_ -= lines_.front().text.size();
      lines_.pop_front();
    }
  }

  struct Line {
    std::uint64_t number = 0;
    std::string name;  // of the replica that wrote it
    std::string text;
  };
  const std::deque<Line>& lines() const { return lines_; }

 private:
  std::deque<Line> lines_;
  std::size_t bytes_ = 0;
};

}  // namespace ringmaster::supervise
