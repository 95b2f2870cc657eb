#include "balance/ring.h"

#include <xxhash.h>

#include <array>

#include "base/check.h"

namespace ringmaster::balance {

using base::Code;
using base::Result;

static std::uint64_t xxhash_of(std::uint64_t i, std::uint64_t j) {
  const std::array<std::uint64_t, 2> words = {i, j};
  return XXH3_64bits(words.data(), sizeof words);
}

Result<RingFunction> RingFunction::parse(const std::string& text, bool allow_j) {
  if (text == "xxhash") return RingFunction{};
  auto polynomial = Polynomial::parse(text, allow_j);
  if (!polynomial) return std::unexpected(polynomial.error());
  return RingFunction{false, std::move(*polynomial)};
}

std::uint32_t RingFunction::evaluate(std::uint64_t i, std::uint64_t j, std::uint32_t m) const {
  return xxhash ? static_cast<std::uint32_t>(xxhash_of(i, j) % m) : polynomial.evaluate(i, j, m);
}

bool apply_preset(std::string_view name, RingSettings& settings) {
  const auto set = [&](std::string_view h, std::string_view phi, Probing probing) {
    settings.request_function = {false, *Polynomial::parse(h, false)};
    settings.virtual_function = {false, *Polynomial::parse(phi, true)};
    settings.probing = probing;
    return true;
  };
  if (name == "s1") return set("i*i + 2*i + 17", "i*i + j*j + 2*j + 25", Probing::linear);
  if (name == "s2") return set("i + 2*i*i + 17", "i + j + 2*j*j + 25", Probing::quadratic);
  if (name == "xxhash") {
    settings.request_function = settings.virtual_function = {};
    settings.probing = Probing::linear;
    return true;
  }
  return false;
}

Result<Ring> Ring::build(const RingSettings& settings, const std::vector<Server>& servers) {
  const std::uint32_t m = settings.slots;
  std::uint64_t needed = 0;
  for (const Server& server : servers) needed += std::uint64_t{server.weight} * settings.virtual_servers;
  if (needed > m) {
    return base::fail(Code::too_large, std::to_string(servers.size()) + " servers with " + std::to_string(settings.virtual_servers) +
                                           " virtual servers each need " + std::to_string(needed) + " slots; the ring has " + std::to_string(m));
  }
  Ring ring;
  ring.xxhash_ = settings.request_function.xxhash;
  ring.owners_.resize(m);
  const auto place = [&](std::uint32_t first, Seat seat) {
    for (std::uint64_t step = 0; step < 2ULL * m; ++step) {
      // After m quadratic steps without a free slot: linearly, from the first slot again.
      const bool quadratic = settings.probing == Probing::quadratic && step < m;
      const std::uint64_t offset = quadratic ? step * step : step % m;
      Seat& candidate = ring.owners_[(first + offset) % m];
      if (candidate.server != kNobody) continue;
      candidate = seat;
      return;
    }
    CHECK(false);  // needed <= m: there is a free slot, and linear probing finds it
  };
  for (std::uint32_t index = 0; index < servers.size(); ++index) {
    const std::uint64_t i = std::uint64_t{servers[index].slot} - 1 + settings.server_base;
    for (std::uint32_t k = 0; k < settings.virtual_servers * servers[index].weight; ++k) {
      place(settings.virtual_function.evaluate(i, k + settings.virtual_base, m), {index, k});
    }
  }
  if (!ring.xxhash_) {
    for (std::uint32_t i = 0; i < m; ++i) ring.hash_of_residue_.push_back(settings.request_function.evaluate(i, 0, m));
  }
  if (needed == 0) return ring;
  ring.next_.resize(m);
  std::uint32_t next = kNobody;
  for (std::uint32_t back = 2 * m; back-- > 0;) {  // twice around, so that the wrap is known
    if (ring.owners_[back % m].server != kNobody) next = back % m;
    ring.next_[back % m] = next;
  }
  return ring;
}

std::uint32_t Ring::hash(std::uint64_t id) const {
  const auto m = static_cast<std::uint32_t>(owners_.size());
  return xxhash_ ? static_cast<std::uint32_t>(xxhash_of(id, 0) % m) : hash_of_residue_[id % m];
}

}  // namespace ringmaster::balance
