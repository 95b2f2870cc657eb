// The fuzz targets: each a name, and a function that any bytes may be given to. What must hold beyond "no crash" is CHECKed by
// the function itself: what we write we read the same, and what comes in pieces is understood as if it came at once.
//
// Two programs run them: parsers_fuzz (libFuzzer, for ./dev fuzz) and corpus_test (any build, for ctest).
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "base/check.h"
#include "io/sim_system.h"

namespace ringmaster::fuzz {

struct Target {
  std::string_view name;  // and that of its folder in corpus/
  void (*run)(std::string_view bytes);
};
std::span<const Target> targets();
const Target* find_target(std::string_view name);

// messages_fuzz.cc: what clients and replicas send
void request(std::string_view bytes);
void response(std::string_view bytes);
void body(std::string_view bytes);
void path(std::string_view bytes);
void proxy(std::string_view bytes);
void trace(std::string_view bytes);
void cookie(std::string_view bytes);
// values_fuzz.cc: what people, tools and files say
void config(std::string_view bytes);
void polynomial(std::string_view bytes);
void endpoint(std::string_view bytes);
void expression(std::string_view bytes);
void json_slice(std::string_view bytes);
void change(std::string_view bytes);
void task(std::string_view bytes);
void registration(std::string_view bytes);
void link(std::string_view bytes);
void state_file(std::string_view bytes);
// server_fuzz.cc
void server(std::string_view bytes);
// docker_fuzz.cc
void output_frames(std::string_view bytes);
void docker(std::string_view bytes);

// Runs `body` as the only process of a simulated machine, to its end.
void simulate(const std::function<io::Async<void>(io::SimProcess&)>& body);

}  // namespace ringmaster::fuzz
