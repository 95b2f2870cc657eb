// Servers that announce themselves (CONTRACT S4): POST /server_up and /server_down, GET /servers, on a classic listener whose
// pool allows it. Registering is a way in: only from allowed networks, only to http:// addresses in them, looked up once, with
// the shared token if there is one. What is registered is an address and a name, nothing else. Runs on a worker's loop.
#pragma once

#include "admin/operations.h"
#include "config/config.h"
#include "proxy/balancer.h"
#include "wire/server.h"

namespace ringmaster::admin {

// What a server says of itself.
struct Announcement {
  std::string address;  // "10.0.0.7:5000" or "name:5000"
  std::string name;     // empty: none of its own
  base::Duration ttl{};
};
// {"url": "http://10.0.0.7:5000", "name": "S1", "ttl": 30}. The error's detail is for the client.
base::Result<Announcement> parse_announcement(std::string_view text);

class Registration {
 public:
  // `pages`: how errors are told.
  Registration(const config::Config& config, const config::Listener& listener, proxy::Balancer& balancer, Operations& operations, const wire::Handler& pages);

  bool takes(std::string_view path) const;
  // `may_list`: the caller may see the servers even if he may not register.
  io::Async<void> handle(wire::Exchange& exchange, bool may_list);

 private:
  base::Result<void> may_register(const wire::Exchange& exchange) const;
  bool may_speak_for(const wire::Exchange& exchange, const base::Endpoint& endpoint) const;
  bool is_own(const wire::Exchange& exchange, const base::Endpoint& endpoint) const;
  io::Async<base::Result<base::Endpoint>> locate(wire::Exchange& exchange, std::string address) const;
  io::Async<void> announce(wire::Exchange& exchange);
  std::string list(io::Loop& loop) const;

  const config::Config& config_;
  const config::Pool& pool_;
  proxy::Balancer& balancer_;
  Operations& operations_;
  const wire::Handler& pages_;
};

}  // namespace ringmaster::admin
