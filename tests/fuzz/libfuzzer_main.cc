// libFuzzer's entry. RINGMASTER_FUZZ_TARGET names the target.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "fuzz.h"

static const ringmaster::fuzz::Target* chosen() {
  const char* name = std::getenv("RINGMASTER_FUZZ_TARGET");
  const auto* target = ringmaster::fuzz::find_target(name == nullptr ? "" : name);
  if (target != nullptr) {
    ringmaster::base::log::set_level(ringmaster::base::log::Level::off);
    return target;
  }
  std::fputs("RINGMASTER_FUZZ_TARGET must be one of:", stderr);
  for (const auto& one : ringmaster::fuzz::targets()) std::fprintf(stderr, " %.*s", static_cast<int>(one.name.size()), one.name.data());
  std::fputs("\n", stderr);
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto* target = chosen();
  target->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
