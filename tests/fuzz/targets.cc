#include <algorithm>
#include <array>

#include "fuzz.h"

namespace ringmaster::fuzz {

static constexpr std::array kTargets = std::to_array<Target>({
    {"body", body},
    {"change", change},
    {"config", config},
    {"cookie", cookie},
    {"docker", docker},
    {"endpoint", endpoint},
    {"expression", expression},
    {"json_slice", json_slice},
    {"link", link},
    {"output_frames", output_frames},
    {"path", path},
    {"polynomial", polynomial},
    {"proxy", proxy},
    {"registration", registration},
    {"request", request},
    {"response", response},
    {"server", server},
    {"state_file", state_file},
    {"task", task},
    {"trace", trace},
});

std::span<const Target> targets() { return kTargets; }

const Target* find_target(std::string_view name) {
  const auto* found = std::ranges::find(kTargets, name, &Target::name);
  return found == kTargets.end() ? nullptr : found;
}

namespace {

class Program final : public io::SimProgram {
 public:
  Program(io::SimProcess& process, const std::function<io::Async<void>(io::SimProcess&)>& body) : process_(process) { process.loop().root().spawn(live(body)); }
  void kill() override { process_.loop().root().cancel(); }
  bool ended() const override { return ended_; }

 private:
  io::Async<void> live(const std::function<io::Async<void>(io::SimProcess&)>& body) {
    co_await body(process_);
    ended_ = true;
  }
  io::SimProcess& process_;
  bool ended_ = false;
};

}  // namespace

void simulate(const std::function<io::Async<void>(io::SimProcess&)>& body) {
  io::SimFaults none;  // what comes in which pieces is the input's to say
  none.fragment = 0;
  io::SimWorld world(1, none);
  world.install("program", [&](io::SimProcess& process) { return std::make_unique<Program>(process, body); });
  io::SpawnRequest request;
  request.argv = {"program"};
  const auto process = world.spawn(nullptr, request);
  CHECK(process.has_value());
  const bool ended = world.run([&] { return (*process)->program && (*process)->program->ended(); }, world.now() + std::chrono::minutes(10));
  CHECK(ended);
}

}  // namespace ringmaster::fuzz
