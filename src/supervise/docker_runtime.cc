#include "supervise/docker_runtime.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "base/names.h"
#include "http/target.h"
#include "supervise/output_frames.h"

namespace ringmaster::supervise {

using base::Code;
using base::Duration;
using base::Endpoint;
using base::Result;
using io::Async;
using nlohmann::json;
using namespace std::chrono_literals;

static std::string text_at(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// Empty if it is none: an id stands in the paths of later requests, which nothing in it may end or lead elsewhere.
static std::string id_of(const json& object) {
  const std::string id = text_at(object, "Id");
  return http::percent_encode(id) == id && !id.starts_with('.') ? id : "";
}

// Null where there is none.
static json member(const json& object, const std::string& key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() ? *found : json();
}

// One of them as the fleet sees it. When it goes, so does what is left of the container.
class RunningContainer final : public Running {
 public:
  RunningContainer(DockerRuntime& runtime, DockerRuntime::ContainerPtr container, Endpoint endpoint, Duration grace)
      : runtime_(runtime), container_(std::move(container)), endpoint_(std::move(endpoint)), grace_(grace) {}
  ~RunningContainer() override { runtime_.working_.spawn(runtime_.discard(container_)); }

  Endpoint endpoint() const override { return endpoint_; }
  std::string container() const override { return container_->id; }
  Async<Result<std::string>> wait(base::Time deadline) override {
    while (!container_->ended) {
      const Code woken = co_await container_->end.wait(runtime_.loop_, deadline);
      if (woken != Code::ok) co_return base::fail(woken);
    }
    co_return container_->how;
  }
  // By the signal that its image asks for.
  void terminate() override { runtime_.working_.spawn(runtime_.terminate(container_, grace_)); }
  void kill() override { runtime_.working_.spawn(runtime_.kill(container_)); }

 private:
  DockerRuntime& runtime_;
  DockerRuntime::ContainerPtr container_;
  Endpoint endpoint_;
  Duration grace_;
};

DockerRuntime::DockerRuntime(io::Loop& loop, const config::Config& config, ContainerHost host)
    : loop_(loop), config_(config), host_(std::move(host)), api_(loop, config.docker), following_(loop), working_(loop) {
  const json label = {{"label", {std::string(label::kInstance) + "=" + host_.instance}}};
  ours_ = http::percent_encode(base::json_text(label));
}

Async<void> DockerRuntime::stop() {
  following_.cancel();
  co_await following_.join();
  co_await working_.join();
  // A network that we made, and that nobody uses any more.
  const auto networks = co_await api_.call("GET", "/networks?filters=" + ours_, nullptr, 5s);
  if (!networks || !networks->body.is_array()) co_return;
  for (const json& network : networks->body) {
    const std::string id = id_of(network);
    if (id.empty()) continue;
    const std::string path = "/networks/" + id;
    co_await api_.call("DELETE", path, nullptr, 5s);
  }
}

// --- the connection to Docker ---

Async<void> DockerRuntime::follow() {
  Duration pause = 100ms;
  while (!following_.cancelled()) {
    const auto served = co_await serve();
    if (following_.cancelled()) co_return;
    if (std::exchange(connected_, false)) pause = 100ms;
    const std::string complaint = served ? "Docker has ended its stream of events" : base::describe(served.error());
    if (complaint != complaint_) base::log::error("{}; trying again until it works", complaint);
    complaint_ = complaint;
    const Code slept = co_await loop_.sleep(pause);
    if (slept == Code::cancelled) co_return;
    pause = std::min<Duration>(pause * 2, 1s);
  }
}

// Until the connection is lost.
Async<Result<void>> DockerRuntime::serve() {
  const auto spoken = co_await api_.negotiate();
  if (!spoken) co_return std::unexpected(spoken.error());
  // All events of ours, not only those we need: older Podmans know other names for them, and filter by none of both.
  const json wanted = {{"type", {"container"}}, {"label", {std::string(label::kInstance) + "=" + host_.instance}}};
  const std::string path = "/events?filters=" + http::percent_encode(base::json_text(wanted));
  // Before the list is asked for: what ends after that is told by an event.
  const auto events = co_await api_.open("GET", path);
  if (!events) co_return std::unexpected(events.error());
  const auto compared = co_await reconcile();
  if (!compared) co_return std::unexpected(compared.error());
  if (!complaint_.empty()) base::log::info("connected to Docker again");
  complaint_.clear();
  connected_ = true;
  connected_signal_.notify();
  static constexpr std::size_t kEventBytesMax = 1 << 20;
  std::string lines;
  while (true) {
    const auto piece = co_await (*events)->read();
    if (!piece) co_return base::fail(piece.error().code, "the connection to Docker is lost");
    if (piece->empty()) co_return Result<void>{};
    lines += *piece;
    if (lines.size() > kEventBytesMax) co_return base::fail(Code::invalid, "Docker sends an event of more than a megabyte");
    for (std::size_t end = lines.find('\n'); end != std::string::npos; end = lines.find('\n')) {
      const json event = base::parse_json(lines.substr(0, end));
      lines.erase(0, end + 1);
      if (event.is_object()) on_event(event);
    }
  }
}

static std::string describe_exit(const std::string& code) {
  if (code == "137") return "was killed (exit code 137)";
  return code == "0" ? "ended (exit code 0)" : "ended with exit code " + code;
}

void DockerRuntime::on_event(const json& event) {
  const json actor = member(event, "Actor");
  const auto found = containers_.find(text_at(actor, "ID"));
  if (found == containers_.end()) return;
  const ContainerPtr container = found->second;
  const std::string action = text_at(event, "Action");
  if (action == "oom") container->out_of_memory = true;
  if (action == "destroy" || action == "remove") ended(container, "was removed");
  if (action == "die" || action == "died") {
    const json attributes = member(actor, "Attributes");
    const std::string code = text_at(attributes, "exitCode");
    const std::string how = describe_exit(code.empty() ? text_at(attributes, "containerExitCode") : code);
    ended(container, how + (container->out_of_memory ? ": it needed more memory than it may have" : ""));
  }
}

void DockerRuntime::ended(const ContainerPtr& container, std::string how) {
  if (container->ended) return;
  container->ended = true;
  container->how = std::move(how);
  containers_.erase(container->id);
  container->end.notify();
}

// What is there, against what should be.
Async<Result<void>> DockerRuntime::reconcile() {
  const std::map<std::string, ContainerPtr> before = containers_;  // what begins from here on need not be in the list
  const auto list = co_await api_.call("GET", "/containers/json?all=1&filters=" + ours_);
  if (!list) co_return std::unexpected(list.error());
  if (!list->good() || !list->body.is_array()) co_return base::fail(Code::internal, "Docker does not list its containers: " + list->message());
  std::set<std::string> there;
  for (const json& one : list->body) {
    const std::string id = id_of(one);
    if (id.empty()) continue;
    there.insert(id);
    judge(id, one);
  }
  for (const auto& [id, container] : before) {
    if (!there.contains(id)) ended(container, "is gone");
  }
  co_return Result<void>{};
}

void DockerRuntime::judge(const std::string& id, const json& listed) {
  const json labels = member(listed, "Labels");
  const std::string name = text_at(labels, label::kName);
  const std::string state = text_at(listed, "State");
  if (const auto known = containers_.find(id); known != containers_.end()) {
    if (state == "exited" || state == "dead") ended(ContainerPtr(known->second), "ended while Docker could not be asked");
    return;
  }
  if (making_.contains(name)) return;
  const std::string pool = text_at(labels, label::kPool);
  const auto slot = static_cast<std::uint32_t>(std::strtoul(text_at(labels, label::kSlot).c_str(), nullptr, 10));
  const std::uint64_t epoch = std::strtoull(text_at(labels, label::kEpoch).c_str(), nullptr, 10);
  const config::Pool* settings = config_.find_pool(pool);
  const auto wanted = waiting_.find({pool, slot});
  const bool right = settings != nullptr && wanted != waiting_.end() && wanted->second == name && state == "running" &&
                     text_at(labels, label::kConfig) == container_config(host_, *settings);
  const auto other = found_.find({pool, slot});
  if (right && (other == found_.end() || other->second.epoch < epoch)) {  // of two, one was on its way out
    if (other != found_.end()) working_.spawn(remove_stray(other->second.id, name, socket_folder(host_, pool, slot, other->second.epoch)));
    found_[{pool, slot}] = {id, name, epoch};
    return;
  }
  // Whoever may use Docker can write labels: one that is no pool's name must not lead us out of our folder.
  working_.spawn(remove_stray(id, name, base::is_pool_name(pool) ? socket_folder(host_, pool, slot, epoch) : ""));
}

Async<void> DockerRuntime::remove_stray(std::string id, std::string name, std::string folder) {
  base::log::warning("container {} ({}) is left over from an earlier time, and is removed", base::log::printable(name, 80), id.substr(0, 12));
  co_await remove(id);
  if (!folder.empty()) clear_folder(folder);
}

Async<void> DockerRuntime::remove(std::string id) {
  static constexpr int kTries = 3;
  const std::string path = "/containers/" + id + "?force=1&v=1";
  for (int tries = 1; tries <= kTries; ++tries) {
    const auto removed = co_await api_.call("DELETE", path, nullptr, patience());
    if (removed && (removed->good() || removed->status == 404 || removed->status == 409)) co_return;  // 409: it is being removed
    if (tries == kTries) {
      base::log::warning("container {} cannot be removed: {}", id.substr(0, 12), removed ? removed->message() : base::describe(removed.error()));
    }
    const Code slept = co_await loop_.sleep(200ms);
    if (slept == Code::cancelled) co_return;
  }
}

void DockerRuntime::clear_folder(const std::string& folder) {
  loop_.system().clear_directory(folder);
  loop_.system().remove_file(folder);
}

// How long an answer may take: at the end of everything, not as long as otherwise.
Duration DockerRuntime::patience() const { return stopping_ ? Duration(5s) : Duration(30s); }

Async<bool> DockerRuntime::until_connected(const Launch& launch) {
  if (connected_) co_return true;
  waiting_[{launch.pool.name, launch.slot}] = launch.name;
  while (!connected_) {
    const Code woken = co_await connected_signal_.wait(loop_);
    if (woken == Code::cancelled) break;
  }
  waiting_.erase({launch.pool.name, launch.slot});
  co_return connected_;
}

// --- starting ---

Async<Result<std::unique_ptr<Running>>> DockerRuntime::start(Launch launch) {
  const bool connected = co_await until_connected(launch);
  if (!connected) co_return base::fail(Code::cancelled);
  auto left = found_.extract({launch.pool.name, launch.slot});
  if (!left.empty() && left.mapped().name != launch.name) {  // whoever was to have it does not come any more
    working_.spawn(remove_stray(left.mapped().id, left.mapped().name, socket_folder(host_, launch.pool.name, launch.slot, left.mapped().epoch)));
  } else if (!left.empty()) {
    auto taken = co_await take_over(launch, left.mapped());
    if (taken || taken.error().code == Code::cancelled) co_return taken;
  }
  const auto making = std::make_shared<Making>();
  working_.spawn(carry_out(making, std::move(launch)));
  while (!making->done) {
    const Code woken = co_await making->end.wait(loop_);
    if (woken != Code::cancelled) continue;
    making->abandoned = true;
    co_return base::fail(Code::cancelled);
  }
  co_return std::move(making->result);
}

Async<void> DockerRuntime::carry_out(std::shared_ptr<Making> making, Launch launch) {
  const auto name = making_.insert(launch.name);
  making->result = co_await make(making, std::move(launch));
  making_.erase(name);
  if (making->abandoned) making->result = base::fail(Code::cancelled);  // and so it is removed
  making->done = true;
  making->end.notify();
}

DockerRuntime::ContainerPtr DockerRuntime::track(std::string id, const Launch& launch, std::uint64_t epoch) {
  auto container = std::make_shared<Container>();
  container->id = std::move(id);
  if (launch.pool.container.on_unix_socket()) container->folder = socket_folder(host_, launch.pool.name, launch.slot, epoch);
  containers_[container->id] = container;
  return container;
}

// What cannot be taken over is removed.
Async<Result<std::unique_ptr<Running>>> DockerRuntime::take_over(Launch launch, Found found) {
  const ContainerPtr container = track(found.id, launch, found.epoch);
  const auto endpoint = co_await locate(launch, container, found.epoch);
  if (container->ended || !endpoint) {
    container->output_complete = true;
    working_.spawn(discard(container));
    co_return base::fail(endpoint ? Code::exited : endpoint.error().code);
  }
  base::log::info("{} (slot {}) runs already: container {} is taken over", launch.name, launch.slot, found.id.substr(0, 12));
  following_.spawn(read_output(container, false, launch.output));
  co_return std::make_unique<RunningContainer>(*this, container, *endpoint, launch.pool.grace);
}

Async<Result<std::unique_ptr<Running>>> DockerRuntime::make(std::shared_ptr<Making> making, Launch launch) {
  const config::Container& settings = launch.pool.container;
  const auto network = co_await have_network(settings.network);
  if (!network) co_return std::unexpected(network.error());
  const std::string folder = settings.on_unix_socket() ? socket_folder(host_, launch.pool.name, launch.slot, launch.epoch) : "";
  if (!folder.empty()) {
    // Whichever user the container has may make its socket there; on this machine only we and the engine can enter the folder
    // above.
    const auto made = loop_.system().make_directory(folder, 0777, false);
    if (!made) co_return std::unexpected(made.error());
  }
  auto id = co_await create(making, launch);
  if (!id) {
    if (!folder.empty()) clear_folder(folder);
    co_return std::unexpected(id.error());
  }
  const ContainerPtr container = track(*id, launch, launch.epoch);  // before the start: its end may come at once
  const std::string path = "/containers/" + *id + "/start";
  const auto started = co_await api_.call("POST", path);
  if (!started || !started->good()) {
    container->output_complete = true;
    working_.spawn(discard(container));
    if (!started) co_return std::unexpected(started.error());
    co_return base::fail(Code::invalid, started->message());
  }
  following_.spawn(read_output(container, true, launch.output));
  const auto endpoint = co_await locate(launch, container, launch.epoch);
  if (!endpoint && !container->ended) {
    working_.spawn(discard(container));
    co_return std::unexpected(endpoint.error());
  }
  co_return std::make_unique<RunningContainer>(*this, container, endpoint ? *endpoint : Endpoint{}, launch.pool.grace);
}

Async<Result<std::string>> DockerRuntime::create(std::shared_ptr<Making> making, const Launch& launch) {
  const std::string path = "/containers/create?name=" + http::percent_encode(launch.name);
  bool pulled = false;
  bool cleared = false;
  while (!making->abandoned) {
    const json spec = container_spec(host_, launch);
    const auto answer = co_await api_.call("POST", path, spec);
    if (!answer) {  // whether there is one now nobody knows: the name tells
      co_await clear_name(launch);
      co_return std::unexpected(answer.error());
    }
    if (answer->good()) {
      std::string id = id_of(answer->body);
      if (id.empty()) co_return base::fail(Code::internal, "Docker does not say which container it has made");
      co_return id;
    }
    const std::string why = answer->message();
    if (answer->status == 404 && !std::exchange(pulled, true)) {
      const auto had = co_await have_image(launch.pool.container.image);
      if (!had) co_return std::unexpected(had.error());
      continue;
    }
    if (answer->status == 409 && !std::exchange(cleared, true)) {
      const auto free = co_await clear_name(launch);
      if (!free) co_return std::unexpected(free.error());
      continue;
    }
    co_return base::fail(Code::invalid, why);
  }
  co_return base::fail(Code::cancelled);
}

// The name is taken. By one of ours that is on its way out: it goes aside while it still works, or is removed.
Async<Result<void>> DockerRuntime::clear_name(const Launch& launch) {
  const std::string inspect = "/containers/" + http::percent_encode(launch.name) + "/json";
  const base::Time deadline = loop_.now() + 5s;
  while (loop_.now() < deadline) {
    const auto there = co_await api_.call("GET", inspect, nullptr, patience());
    if (!there) co_return std::unexpected(there.error());
    if (there->status == 404) break;
    const json labels = member(member(there->body, "Config"), "Labels");
    const std::string id = id_of(there->body);
    if (id.empty()) co_return base::fail(Code::internal, "Docker does not say which container has the name '" + launch.name + "'");
    const bool works = containers_.contains(id);
    if (text_at(labels, label::kInstance) != host_.instance) {
      co_return base::fail(Code::exists, "the name '" + launch.name + "' is taken by a container that is not ours");
    }
    if (works && text_at(labels, label::kPool) != launch.pool.name) {  // within a pool names are unique: there the other one leaves
      co_return base::fail(Code::exists, "the name '" + launch.name + "' is taken by a container of pool '" + text_at(labels, label::kPool) + "'");
    }
    const std::string aside = "/rename?name=" + http::percent_encode(launch.name + ".old-" + text_at(labels, label::kEpoch));
    const std::string method = works ? "POST" : "DELETE";
    const std::string path = "/containers/" + id + (works ? aside : "?force=1&v=1");
    const auto done = co_await api_.call(method, path, nullptr, patience());
    if (!done) co_return std::unexpected(done.error());
    if (done->good()) break;
    const Code slept = co_await loop_.sleep(50ms);  // it is being removed already
    if (slept == Code::cancelled) co_return base::fail(Code::cancelled);
  }
  co_return Result<void>{};
}

// Whether we are one of these, by id: a container's host name is the beginning of its id.
bool DockerRuntime::is_in(const json& containers) const {
  const auto file = loop_.system().read_file("/etc/hostname");
  const std::string name = file ? file->substr(0, file->find('\n')) : "";
  static constexpr std::size_t kIdBytes = 12;
  if (name.size() < kIdBytes || !containers.is_object()) return false;
  return std::ranges::any_of(containers.items(), [&](const auto& one) { return one.key().starts_with(name); });
}

Async<Result<void>> DockerRuntime::have_network(const std::string& network) {
  const auto turn = co_await networks_.take(loop_);
  if (!turn) co_return std::unexpected(turn.error());
  const std::string path = "/networks/" + http::percent_encode(network);
  const auto there = co_await api_.call("GET", path);
  if (!there) co_return std::unexpected(there.error());
  if (there->good()) {
    const json labels = member(there->body, "Labels");
    const std::string owner = text_at(labels, label::kInstance);
    if (!owner.empty() && owner != host_.instance) {
      co_return base::fail(Code::exists, "the network '" + network + "' belongs to another Ringmaster: name another one in [pool.X.container]");
    }
    // A network of docker-compose is right if we are in it ourselves.
    const std::string project = text_at(labels, "com.docker.compose.project");
    if (project.empty() || is_in(member(there->body, "Containers"))) co_return Result<void>{};
    co_return base::fail(Code::exists, "the network '" + network + "' belongs to the project '" + project + "': name another one in [pool.X.container]");
  }
  const json wanted = {{"Name", network}, {"Driver", "bridge"}, {"CheckDuplicate", true}, {"Labels", {{label::kInstance, host_.instance}}}};
  const auto made = co_await api_.call("POST", "/networks/create", wanted);
  if (!made) co_return std::unexpected(made.error());
  if (made->good() || made->status == 409) co_return Result<void>{};  // 409: somebody was faster
  co_return base::fail(Code::internal, "the network '" + network + "' cannot be made: " + made->message());
}

// Where it listens.
Async<Result<Endpoint>> DockerRuntime::locate(const Launch& launch, ContainerPtr container, std::uint64_t epoch) {
  const config::Container& settings = launch.pool.container;
  const std::string path = "/containers/" + container->id + "/json";
  const auto answer = co_await api_.call("GET", path);
  if (!answer) co_return std::unexpected(answer.error());
  const json state = member(answer->body, "State");
  if (!answer->good() || member(state, "Running") != json(true)) {
    const json code = member(state, "ExitCode");
    ended(container, describe_exit(code.is_number_integer() ? std::to_string(code.get<int>()) : "unknown"));
    co_return base::fail(Code::exited);
  }
  if (settings.on_unix_socket()) {
    const Launch as_made{launch.pool, launch.slot, epoch, launch.name, {}, {}};
    co_return socket_endpoint(host_, as_made);
  }
  const json networks = member(answer->body, "NetworkSettings");
  std::string text;
  if (settings.published) {
    const json ports = member(member(networks, "Ports"), std::to_string(settings.port) + "/tcp");
    text = "127.0.0.1:" + (ports.is_array() && !ports.empty() ? text_at(ports[0], "HostPort") : "");
  } else {
    text = text_at(member(member(networks, "Networks"), settings.network), "IPAddress") + ":" + std::to_string(settings.port);
  }
  auto endpoint = Endpoint::parse(text);
  if (!endpoint) co_return base::fail(Code::internal, "Docker does not say where container '" + launch.name + "' is reached ('" + text + "')");
  co_return std::move(*endpoint);
}

// --- images ---

// Brings it here. Whoever needs the same one waits for the same pull.
Async<Result<void>> DockerRuntime::have_image(const std::string& image) {
  std::shared_ptr<Pull>& entry = pulls_[image];
  if (entry == nullptr || entry->done) {
    entry = std::make_shared<Pull>();
    following_.spawn(pull(image, entry));
  }
  const std::shared_ptr<Pull> pulling = entry;
  while (!pulling->done) {
    const Code woken = co_await pulling->end.wait(loop_);
    if (woken == Code::cancelled) co_return base::fail(Code::cancelled);
  }
  if (pulling->failure.empty()) co_return Result<void>{};
  co_return base::fail(Code::not_found, "the image '" + image + "' is not here, and cannot be pulled: " + pulling->failure);
}

Async<void> DockerRuntime::pull(std::string image, std::shared_ptr<Pull> pull) {
  base::log::info("pulling the image {}", image);
  const std::size_t colon = image.rfind(':');
  const bool tagged = image.contains('@') || (colon != std::string::npos && image.find('/', colon) == std::string::npos);
  const std::string path = "/images/create?fromImage=" + http::percent_encode(image) + (tagged ? "" : "&tag=latest");
  const auto stream = co_await api_.open("POST", path);
  if (!stream) pull->failure = base::describe(stream.error());
  static constexpr std::size_t kLineBytesMax = 1 << 20;
  std::string lines;
  base::Time told = loop_.now();
  while (pull->failure.empty()) {
    const auto piece = co_await (*stream)->read();
    if (!piece) pull->failure = base::describe(piece.error());
    if (!piece || piece->empty()) break;
    lines += *piece;
    if (lines.size() > kLineBytesMax) pull->failure = "Docker sends more than a megabyte in a line";
    for (std::size_t end = lines.find('\n'); end != std::string::npos; end = lines.find('\n')) {
      const json step = base::parse_json(lines.substr(0, end));
      lines.erase(0, end + 1);
      if (const std::string error = text_at(step, "error"); !error.empty()) pull->failure = error;
      if (loop_.now() - told < 2s) continue;
      told = loop_.now();
      base::log::info("pulling {}: {} {} {}", image, text_at(step, "id"), text_at(step, "status"), text_at(step, "progress"));
    }
  }
  if (pull->failure.empty()) base::log::info("the image {} is here", image);
  pull->done = true;
  pull->end.notify();
}

// --- output, signals, and the end ---

// Until its end; a stream that breaks off before that is opened again.
Async<void> DockerRuntime::read_output(ContainerPtr container, bool from_start, std::function<void(std::string_view)> output) {
  OutputFrames frames(std::move(output));
  std::string from = from_start ? "" : "&tail=0";
  while (true) {
    const std::string path = "/containers/" + container->id + "/logs?follow=1&stdout=1&stderr=1" + from;
    const auto stream = co_await api_.open("GET", path);
    while (stream) {
      const auto piece = co_await (*stream)->read();
      if (!piece || piece->empty()) break;
      frames.add(*piece);
    }
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(loop_.system().wall_now().time_since_epoch()).count();
    from = "&since=" + std::to_string(seconds);
    const Code woken = co_await container->end.wait(loop_, loop_.now() + 1s);
    if (woken != Code::timeout || container->ended) break;
  }
  frames.end();
  container->output_complete = true;
  container->output_end.notify();
}

// By the signal that its image asks for.
Async<void> DockerRuntime::terminate(ContainerPtr container, Duration grace) {
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(grace).count() + 1;
  const std::string path = "/containers/" + container->id + "/stop?t=" + std::to_string(seconds);
  const auto answer = co_await api_.call("POST", path, nullptr, grace + 10s);
  if (answer && answer->status == 404) ended(container, "is gone");
}

// As often as it takes; at the end of everything, not for ever.
Async<void> DockerRuntime::kill(ContainerPtr container) {
  const std::string path = "/containers/" + container->id + "/kill";
  int in_vain = 0;
  while (!container->ended) {
    const auto answer = co_await api_.call("POST", path, nullptr, patience());
    if (answer && answer->status == 404) ended(container, "is gone");
    if (answer && answer->status == 409) ended(container, "has ended");  // it does not run, though no event has said so
    if (stopping_ && ++in_vain == 3) ended(container, "is left running, as Docker does not end it");
    co_await container->end.wait(loop_, loop_.now() + 1s);
  }
}

// What is left of one that has ended: when its last lines have been read.
Async<void> DockerRuntime::discard(ContainerPtr container) {
  ended(container, "is not wanted any more");
  const base::Time deadline = loop_.now() + 1s;
  while (!container->output_complete && loop_.now() < deadline) {
    const Code woken = co_await container->output_end.wait(loop_, deadline);
    if (woken != Code::ok) break;
  }
  co_await remove(container->id);
  if (!container->folder.empty()) clear_folder(container->folder);
}

}  // namespace ringmaster::supervise
