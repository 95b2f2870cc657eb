// corpus_test TARGET FOLDER: replays a target's corpus, and then tries simple mutations of it for a while; without libFuzzer, so
// in any build. RINGMASTER_FUZZ_SECONDS says for how long (1), RINGMASTER_FUZZ_SEED which ones. What fails is in the file
// that is named: the input is written before it is tried.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/random.h"
#include "fuzz.h"

namespace ringmaster::fuzz {

using namespace std::string_view_literals;

namespace {

constexpr std::size_t kBytesMax = 20000;

double number_from(const char* variable, double otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtod(text, nullptr);
}

std::vector<std::string> read_corpus(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());  // the folder's order is not the same everywhere
  std::vector<std::string> inputs;
  for (const auto& file : files) {
    std::ifstream stream(file, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  return inputs;
}

class Mutator {
 public:
  Mutator(const std::vector<std::string>& corpus, std::uint64_t seed) : corpus_(corpus), random_(seed) {}

  std::string next() {
    std::string input = one();
    for (std::size_t times = 1 + below(4); times > 0; --times) change(input);
    if (input.size() > kBytesMax) input.resize(kBytesMax);
    return input;
  }

 private:
  std::size_t below(std::size_t bound) { return random_.below(static_cast<std::uint32_t>(bound)); }
  const std::string& one() { return corpus_[below(corpus_.size())]; }

  void change(std::string& input) {
    // Bytes that mean something to one parser or another.
    static constexpr std::string_view kSpecial = "\0\r\n\t :;,=\"\\/%?&{}[]()<>.-+0123456789aefEFxX\x1e\x7f\x80\xff"sv;
    const std::size_t at = below(input.size() + 1);
    const std::size_t length = std::min(input.size() - at, 1 + below(below(3) == 0 ? 64 : 4));
    switch (below(6)) {
      case 0: input.erase(at, length); break;
      case 1: input.insert(at, input.substr(at, length)); break;
      case 2: input.insert(at, 1, kSpecial[below(kSpecial.size())]); break;
      case 3:
        if (at < input.size()) input[at] = static_cast<char>(below(2) == 0 ? input[at] ^ (1 << below(8)) : kSpecial[below(kSpecial.size())]);
        break;
      case 4: input.resize(at); break;
      default: {
        const std::string& other = one();
        const std::size_t from = below(other.size() + 1);
        input.insert(at, other.substr(from, 1 + below(other.size() - from + 1)));
      }
    }
  }

  const std::vector<std::string>& corpus_;
  base::Random random_;
};

// Tried as a copy of just its size, so that a sanitizer sees a byte too many being read.
void run(const Target& target, const std::string& input) {
  const auto room = std::make_unique<char[]>(input.size());  // NOLINT(modernize-avoid-c-arrays)
  std::copy(input.begin(), input.end(), room.get());
  target.run({room.get(), input.size()});
}

int replay(const Target& target, const char* folder) {
  const std::vector<std::string> corpus = read_corpus(folder);
  if (corpus.empty()) {
    std::cerr << folder << " is empty\n";
    return 1;
  }
  const std::string last = "fuzz-" + std::string(target.name) + ".last";
  const auto attempt = [&](const std::string& input) {
    std::ofstream(last, std::ios::binary) << input;
    run(target, input);
  };
  std::cerr << "the input that is being tried is in " << std::filesystem::absolute(last).string() << "\n";
  for (const std::string& input : corpus) attempt(input);
  Mutator mutator(corpus, static_cast<std::uint64_t>(number_from("RINGMASTER_FUZZ_SEED", 1)));
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(number_from("RINGMASTER_FUZZ_SECONDS", 1));
  std::size_t tried = 0;
  for (; std::chrono::steady_clock::now() < end; ++tried) attempt(mutator.next());
  std::cerr << target.name << ": " << corpus.size() << " inputs and " << tried << " mutations of them\n";
  std::filesystem::remove(last);
  return 0;
}

}  // namespace
}  // namespace ringmaster::fuzz

int main(int argc, char** argv) {
  const auto* target = argc == 3 ? ringmaster::fuzz::find_target(argv[1]) : nullptr;
  if (target == nullptr) {
    std::cerr << "usage: corpus_test TARGET FOLDER\n";
    return 2;
  }
  ringmaster::base::log::set_level(ringmaster::base::log::Level::off);
  return ringmaster::fuzz::replay(*target, argv[2]);
}
