#include "programs.h"

namespace ringmaster::sim {

ServerProgram::ServerProgram(io::SimProcess& process, Ledger& ledger, TaskSide& tasks)
    : loop_(process.loop()),
      ledger_(ledger),
      tasks_(tasks),
      for_tasks_(process.request.argv.size() > 3),
      slot_(static_cast<unsigned>(std::stoul(process.request.argv[2]))),
      server_(loop_, *this, {}) {
  trouble();
  auto listening = process.systems[0]->listen(*base::Endpoint::parse("unix:" + process.request.argv[1]), {});
  if (listening) server_.listen(std::move(*listening));
}

void ServerProgram::trouble() {
  if (!for_tasks_) ledger_.trouble(slot_, loop_.now());
}

void ServerProgram::kill() {
  trouble();
  loop_.root().spawn(end());
}

Async<void> ServerProgram::end() {
  co_await server_.stop(loop_.now());
  ended_ = true;
}

Async<void> ServerProgram::handle(wire::Exchange& exchange) {
  if (exchange.path() == "/heartbeat") {
    co_await exchange.reply(200, "", "");
    co_return;
  }
  if (exchange.path() == "/task") {
    co_await tasks_.work(exchange, present_);
    co_return;
  }
  const http::Field* field = exchange.request().fields.find("X-Id");
  const std::string id(field == nullptr ? "" : field->value);
  const auto body = co_await exchange.read_whole_body(1 << 20);
  if (!body) co_return;
  ++ledger_.executed[id];
  Duration work = std::chrono::microseconds(100 + loop_.random().below(5000));
  if (slow_) work *= 40;
  const base::Code slept = co_await loop_.sleep(work);
  if (slept == base::Code::cancelled) co_return;
  const std::string answer = id + " " + std::to_string(slot_) + " " + std::to_string(body->size()) + std::string(loop_.random().below(3000), '.');
  co_await exchange.reply(200, "text/plain", answer);
}

}  // namespace ringmaster::sim
