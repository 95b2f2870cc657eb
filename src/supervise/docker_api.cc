#include "supervise/docker_api.h"

#include <charconv>

#include "base/json.h"

namespace ringmaster::supervise {

using base::Code;
using base::Result;
using io::Async;
using nlohmann::json;
using namespace std::chrono_literals;

static constexpr unsigned kOldestMinor = 40;  // Docker 19.03
static constexpr std::size_t kAnswerBytesMax = 32 << 20;

std::string DockerApi::Answer::message() const {
  const auto found = body.is_object() ? body.find("message") : body.end();
  if (body.is_object() && found != body.end() && found->is_string()) return found->get<std::string>();
  return "it answered with status " + std::to_string(status);
}

base::Error DockerApi::explain(const base::Error& error) const {
  const std::string socket = "Docker's socket " + base::to_string(socket_);
  switch (error.code) {
    case Code::denied: return {error.code, error.source, "no permission for " + socket + ": its owner, and the members of its group, may use it"};
    case Code::refused: return {error.code, error.source, "nobody listens at " + socket + ": is Docker running? (docker = \"unix:/path\" says where it is)"};
    default: return {error.code, error.source, socket + ": " + base::describe(error)};
  }
}

Async<Result<void>> DockerApi::negotiate() {
  wire::FetchRequest request;
  request.target = "/_ping";
  const auto answer = co_await wire::fetch(loop_, socket_, request, loop_.now() + 10s, kAnswerBytesMax);
  if (!answer) co_return std::unexpected(explain(answer.error()));
  const std::string version(answer->field("Api-Version"));
  unsigned minor = 0;
  const char* end = version.data() + version.size();
  const bool known = version.starts_with("1.") && std::from_chars(version.data() + 2, end, minor).ptr == end;
  if (answer->status != 200 || !known) {
    co_return base::fail(Code::invalid, "what listens at Docker's socket " + base::to_string(socket_) + " does not answer as Docker does");
  }
  if (minor < kOldestMinor) co_return base::fail(Code::invalid, "Docker's API is too old: version " + version + "; 1.40 is needed (Docker 19.03)");
  prefix_ = "/v" + version;
  co_return Result<void>{};
}

Async<Result<DockerApi::Answer>> DockerApi::call(std::string method, std::string path, json body, base::Duration timeout) {
  wire::FetchRequest request;
  request.method = std::move(method);
  request.target = prefix_ + path;
  if (!body.is_null()) {
    request.headers = "Content-Type: application/json\r\n";
    request.body = base::json_text(body);
  }
  const auto answer = co_await wire::fetch(loop_, socket_, request, loop_.now() + timeout, kAnswerBytesMax);
  if (!answer) co_return std::unexpected(explain(answer.error()));
  Answer result{answer->status, base::parse_json(answer->body)};
  if (result.body.is_discarded()) result.body = nullptr;
  co_return result;
}

Async<Result<std::unique_ptr<wire::FetchStream>>> DockerApi::open(std::string method, std::string path) {
  wire::FetchRequest request;
  request.method = std::move(method);
  request.target = prefix_ + path;
  auto stream = co_await wire::FetchStream::open(loop_, socket_, request, loop_.now() + 30s);
  if (!stream) co_return std::unexpected(explain(stream.error()));
  if ((*stream)->status() < 300) co_return std::move(*stream);
  std::string text;
  while (text.size() < 4096) {
    const auto piece = co_await (*stream)->read();
    if (!piece || piece->empty()) break;
    text += *piece;
  }
  const Answer answer{(*stream)->status(), base::parse_json(text)};
  co_return base::fail(answer.status == 404 ? Code::not_found : Code::internal, answer.message());
}

}  // namespace ringmaster::supervise
