#include "supervise/output_frames.h"

#include <gtest/gtest.h>

#include <vector>

namespace ringmaster::supervise {
namespace {

std::string frame(char stream, const std::string& text) {
  std::string whole = {stream, 0, 0, 0, 0, 0, static_cast<char>(text.size() >> 8), static_cast<char>(text.size() & 0xff)};
  return whole + text;
}

std::vector<std::string> lines_of(const std::string& bytes, std::size_t step) {
  std::vector<std::string> lines;
  OutputFrames frames([&](std::string_view line) { lines.emplace_back(line); });
  for (std::size_t at = 0; at < bytes.size(); at += step) frames.add(std::string_view(bytes).substr(at, step));
  frames.end();
  return lines;
}

TEST(OutputFrames, GivesLinesHoweverTheirFramesAndPiecesAreCut) {
  const std::string bytes = frame(1, "one\ntw") + frame(1, "o\n\nrest");
  for (std::size_t step = 1; step <= bytes.size(); ++step) {
    EXPECT_EQ(lines_of(bytes, step), (std::vector<std::string>{"one", "two", "", "rest"})) << step;
  }
}

TEST(OutputFrames, DoesNotMixLinesOfTheTwoOutputs) {
  EXPECT_EQ(lines_of(frame(1, "out") + frame(2, "error\n") + frame(1, "put\n"), 3), (std::vector<std::string>{"error", "output"}));
}

TEST(OutputFrames, CutsALineThatDoesNotEnd) {
  std::string bytes;
  for (int i = 0; i < 100; ++i) bytes += frame(1, std::string(1000, 'x'));
  for (const std::string& line : lines_of(bytes, 4096)) EXPECT_LE(line.size(), 10000U);
}

}  // namespace
}  // namespace ringmaster::supervise
