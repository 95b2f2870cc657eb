#include "lab/shares.h"

#include <deque>
#include <numeric>

namespace ringmaster::lab {

using balance::Model;
using balance::Policy;
using balance::Probing;

std::string probing_name(Probing probing) { return probing == Probing::linear ? "linear" : "quadratic"; }

Case policy_case(Policy policy, Case::Law law, const std::string& more) {
  Case made;
  made.name = balance::name(policy);
  made.policy = policy;
  made.settings = "policy = \"" + made.name + "\"\n" + (balance::is_hashing(policy) ? "key = \"request_id\"\nbounded_load = 0\n" : "") + more;
  made.law = law;
  return made;
}

Case ring_case(const std::string& preset, Probing probing) {
  Case made;
  made.name = "ring " + preset + " " + probing_name(probing);
  made.policy = Policy::ring;
  made.settings = "policy = \"ring\"\nkey = \"request_id\"\n[pool.web.ring]\nfunctions = \"" + preset + "\"\nprobing = \"" + probing_name(probing) + "\"\n";
  balance::apply_preset(preset, made.ring);
  made.ring.probing = probing;
  return made;
}

Model model_of(const Case& each, unsigned servers) {
  Model model(each.policy, each.weights.empty() ? servers : 0, each.ring);
  for (unsigned slot = 1; !each.weights.empty() && slot <= servers; ++slot) {
    model.add(slot, 1, slot <= each.weights.size() ? each.weights[slot - 1] : 1);
  }
  return model;
}

static std::vector<double> normalised(std::vector<double> counts) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  for (double& count : counts) count = total == 0 ? 0 : count / total;
  return counts;
}

std::vector<double> expected_shares(const Case& each, unsigned servers, std::uint64_t step) {
  std::vector<double> counts(servers, 0);
  if (!balance::is_hashing(each.policy)) {
    for (unsigned slot = 1; slot <= servers; ++slot) counts[slot - 1] = slot <= each.weights.size() ? each.weights[slot - 1] : 1;
    return normalised(std::move(counts));
  }
  Model model = model_of(each, servers);
  for (std::uint64_t id = kIdFirst; id <= kIdLast; id += step) ++counts[model.key_to(id) - 1];
  return normalised(std::move(counts));
}

std::vector<double> simulated_shares(const Case& each, unsigned servers, std::uint64_t requests) {
  static constexpr std::size_t kInFlight = 64;
  Model model = model_of(each, servers);
  std::vector<double> counts(servers, 0);
  std::deque<std::uint32_t> in_flight;
  for (std::uint64_t i = 0; i < requests; ++i) {
    if (in_flight.size() == kInFlight) {
      --model.at(in_flight.front()).cell->in_flight;
      in_flight.pop_front();
    }
    const std::uint32_t slot = model.key_to(balance::draw_request_id(model.state.random));
    ++model.at(slot).cell->in_flight;
    in_flight.push_back(slot);
    ++counts[slot - 1];
  }
  return normalised(std::move(counts));
}

}  // namespace ringmaster::lab
