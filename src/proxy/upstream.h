// One worker's relation to one replica: its idle connections, and the attempts that are under way on it.
//
// When the replica's process is known to have ended, every attempt is failed over at once, those still in its backlog,
// too: nobody waits for a timeout that the operating system has already explained.
#pragma once

#include <memory>

#include "balance/view.h"
#include "proxy/metrics.h"
#include "wire/client.h"

namespace ringmaster::proxy {

class Upstream {
  struct Tag;

 public:
  // Registers a connection for as long as an attempt uses it.
  class Active : public base::Link<Tag> {
   public:
    Active(Upstream& upstream, io::Watch& watch) : watch_(watch) { upstream.active_.push_back(*this); }
    bool answering = false;  // its response's head has come

   private:
    friend class Upstream;
    io::Watch& watch_;
  };

  Upstream(io::Loop& loop, std::shared_ptr<balance::Replica> replica, base::Duration idle_max)
      : replica_(std::move(replica)), connections_(loop, replica_->endpoint, idle_max) {}

  balance::Replica& replica() { return *replica_; }
  const std::shared_ptr<balance::Replica>& share() const { return replica_; }
  wire::ConnectionPool& connections() { return connections_; }

  // Its process has ended: whoever waits for an answer is woken with Code::exited. An answer that has begun, or lies in
  // the socket, is still read: the operating system tells where it ends.
  void exited() {
    connections_.close_idle();
    active_.for_each([](Active& active) {
      if (!active.answering && !active.watch_.readable()) active.watch_.abort(base::Code::exited);
    });
    exited_.notify();
  }
  io::Signal& exit_signal() { return exited_; }

  // How many attempts hold a pointer to it; it is not destroyed before they are gone.
  unsigned users = 0;
  bool retired = false;
  ReplicaMetrics metrics;

 private:
  std::shared_ptr<balance::Replica> replica_;
  wire::ConnectionPool connections_;
  base::IntrusiveList<Active, Tag> active_;
  io::Signal exited_;
};

}  // namespace ringmaster::proxy
