// What a policy should give each server, computed: by asking it for every request id there is, or for many.
#pragma once

#include <string>
#include <vector>

#include "balance/model.h"

namespace ringmaster::lab {

inline constexpr std::uint64_t kIdFirst = 100000;  // request ids, as balance::draw_request_id() draws them
inline constexpr std::uint64_t kIdLast = 999999;

// A way to spread requests, as it is configured and as it is computed.
struct Case {
  std::string name;
  balance::Policy policy;
  std::string settings;  // of the pool, as TOML
  balance::RingSettings ring = balance::Model::printed_ring();
  std::vector<std::uint32_t> weights;  // of the first slots; the others have 1
  enum class Law : std::uint8_t {
    chance,  // each request goes its way independently of others: counts vary as chance has it
    turns,   // shares are kept as exactly as can be
    load,    // by what is in flight: even, if servers are equal; no law says how much counts vary
    none,    // whoever comes first gets all that it has room for
  } law = Law::chance;
};
// The policy by its name, with request ids for the hashing ones and without bounded load. `more`: settings.
Case policy_case(balance::Policy policy, Case::Law law, const std::string& more = {});
// The ring with these functions (a preset's name) and this probing.
Case ring_case(const std::string& preset, balance::Probing probing);
std::string probing_name(balance::Probing probing);

balance::Model model_of(const Case& each, unsigned servers);

// The exact share of each of `servers` of the requests, over every `step`th id. Of no use for Law::none.
std::vector<double> expected_shares(const Case& each, unsigned servers, std::uint64_t step = 1);

// What so many requests would give each server if 64 were in flight at a time, answered in order: for the policies that look
// at the load or at nothing.
std::vector<double> simulated_shares(const Case& each, unsigned servers, std::uint64_t requests);

}  // namespace ringmaster::lab
