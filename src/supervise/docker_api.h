// The Docker Engine API (or Podman's, which speaks the same): calls over its Unix socket, JSON both ways. The version that
// the other side names in its ping is used, so that old and new engines will do.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "wire/client.h"

namespace ringmaster::supervise {

class DockerApi {
 public:
  DockerApi(io::Loop& loop, base::Endpoint socket) : loop_(loop), socket_(std::move(socket)) {}

  // Asks which version it speaks. Errors say in a sentence what is wrong: no such socket, no permission, too old.
  io::Async<base::Result<void>> negotiate();

  struct Answer {
    unsigned status = 0;
    nlohmann::json body;  // null if there is none
    bool good() const { return status >= 200 && status < 300; }
    std::string message() const;  // Docker's own words on what went wrong
  };
  // An answer of any status. Errors: there was none.
  io::Async<base::Result<Answer>> call(std::string method, std::string path, nlohmann::json body = nullptr, base::Duration timeout = std::chrono::seconds(30));
  // An answer that is read as it comes. Errors: there was none, or its status is no success.
  io::Async<base::Result<std::unique_ptr<wire::FetchStream>>> open(std::string method, std::string path);

 private:
  base::Error explain(const base::Error& error) const;

  io::Loop& loop_;
  base::Endpoint socket_;
  std::string prefix_;  // "/v1.41"
};

}  // namespace ringmaster::supervise
