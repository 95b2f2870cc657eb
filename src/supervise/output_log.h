// The last lines that the replicas of a slot have written, for those who ask what became of one.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace ringmaster::supervise {

class OutputLog {
 public:
  struct Line {
    std::uint64_t number = 0;
    std::string name;  // of the replica that wrote it
    std::string text;
  };
  static constexpr std::size_t kBytesMax = 128 << 10;
  static std::size_t cost(const Line& line) { return sizeof(Line) + line.name.size() + line.text.size(); }

  // `number` grows from line to line, over all logs.
  void add(std::uint64_t number, const std::string& name, std::string_view text) {
    bytes_ += cost(lines_.emplace_back(number, name, std::string(text)));
    while (bytes_ > kBytesMax) {
      bytes_ -= cost(lines_.front());
      lines_.pop_front();
    }
  }
  const std::deque<Line>& lines() const { return lines_; }

 private:
  std::deque<Line> lines_;
  std::size_t bytes_ = 0;
};

}  // namespace ringmaster::supervise
