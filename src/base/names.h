// The rules for names that people give to replicas and pools.
#pragma once

#include <string>
#include <string_view>

namespace ringmaster::base {

class Random;

// [A-Za-z0-9][A-Za-z0-9 _.-]{0,62}
bool is_replica_name(std::string_view name);

// The same without spaces, and at least two: what is a replica name, a container's and a host's at once.
bool is_container_name(std::string_view name);

// [A-Za-z0-9][A-Za-z0-9_-]{0,31}: pool names stand in URLs and in socket paths.
bool is_pool_name(std::string_view name);

// "Server-" and six random letters or digits; about 2·10^9 of them.
std::string random_replica_name(Random& random);

// `text` with every "{key}" replaced by its value.
std::string replace_all(std::string_view text, std::string_view placeholder, std::string_view value);

}  // namespace ringmaster::base
