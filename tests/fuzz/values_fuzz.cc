// What people, tools and files say: configuration, JSON, arithmetic, addresses.
#include <cmath>
#include <cstdlib>
#include <string>

#include "admin/change_request.h"
#include "admin/json_slice.h"
#include "admin/registration.h"
#include "admin/task_request.h"
#include "balance/polynomial.h"
#include "base/endpoint.h"
#include "base/json.h"
#include "base/names.h"
#include "config/load.h"
#include "dispatch/task_json.h"
#include "fuzz.h"
#include "http/target.h"
#include "link/messages.h"
#include "supervise/state_file.h"
#include "task/expression.h"

namespace ringmaster::fuzz {

using nlohmann::json;

void config(std::string_view bytes) { (void)config::parse("fuzz.toml", std::string(bytes)); }

void polynomial(std::string_view bytes) {
  const auto parsed = balance::Polynomial::parse(bytes, true);
  if (!parsed) return;
  for (const std::uint32_t m : {1U, 2U, 512U, 1U << 31}) CHECK(parsed->evaluate(UINT64_MAX, 7, m) < m);
  CHECK(parsed->evaluate(5, 7, 512) == parsed->evaluate(5, 7, 1024) % 512);
}

void endpoint(std::string_view bytes) {
  const auto parsed = base::Endpoint::parse(bytes);
  if (!parsed) return;
  const auto again = base::Endpoint::parse(base::to_string(*parsed));
  CHECK(again && *again == *parsed);
}

void expression(std::string_view bytes) {
  const auto checked = task::check_expression(bytes);
  const auto value = [&] {
    unsigned asked = 0;
    const task::Surroundings surroundings{[](double seconds) { CHECK(seconds >= 0 && seconds <= task::kSleepSecondsMax); }, [&asked] { return ++asked > 2; }};
    return task::evaluate(bytes, surroundings);
  };
  const auto first = value();
  if (!first) return;
  CHECK(checked.has_value());  // what was refused at the door would have been understood
  const auto second = value();
  CHECK(std::isfinite(*first) && second && *second == *first);
  CHECK(std::strtod(task::to_text(*first).c_str(), nullptr) == *first);
}

void json_slice(std::string_view bytes) {
  const json value = dispatch::parse_json(bytes);
  if (!value.is_discarded()) CHECK(!bytes.contains('\0') && dispatch::parse_json(admin::slice_value(bytes)) == value);
  if (value.is_object()) {
    CHECK(admin::slice_member(bytes, "a name that nobody has").empty());
    for (const auto& [name, member] : value.items()) CHECK(dispatch::parse_json(admin::slice_member(bytes, name)) == member);
  }
  if (value.is_array()) {
    const auto elements = admin::slice_elements(bytes);
    CHECK(elements.size() == value.size());
    for (std::size_t i = 0; i < elements.size(); ++i) CHECK(dispatch::parse_json(elements[i]) == value[i]);
  }
}

void change(std::string_view bytes) {
  const auto change = admin::parse_change(bytes, "hostnames");
  if (change) CHECK(change->count >= 1 && change->names.size() <= bytes.size());
  const auto size = admin::parse_size(bytes);
  if (size) CHECK(size->count >= 0);
  // Both only as JSON, and what they understood is what stands there.
  if (change || size) {
    const json n = base::parse_json(bytes).at("n");
    CHECK((change ? change : size)->count == static_cast<std::int64_t>(std::min<std::uint64_t>(n.get<std::uint64_t>(), INT64_MAX)));
  }
}

static const config::Config& config_with_tasks() {
  static const config::Config made = [] {
    auto parsed = config::parse("fuzz.toml",
                                "[[listener]]\naddress = \"127.0.0.1:1\"\npool = \"web\"\n[pool.web]\ncommand = [\"a\", \"{socket}\"]\n"
                                "[queue.jobs]\npool = \"web\"\n[queue.pull]\n");
    CHECK(std::holds_alternative<config::Config>(parsed));
    return std::get<config::Config>(parsed);
  }();
  return made;
}

// As the API takes it: the payload as it was sent.
void task(std::string_view bytes) {
  static constexpr task::Millis kNow = 1'800'000'000'000;
  if (const auto time = admin::parse_time(bytes)) {
    static constexpr task::Millis kYear10000 = 253'402'300'800'000;  // a leap second may lead there
    if (*time < kYear10000) CHECK(admin::parse_time(dispatch::format_time(*time)) == time);
  }
  (void)admin::parse_wait(bytes);
  const json value = dispatch::parse_json(bytes);
  if (value.is_discarded() || !value.is_object()) return;
  const auto submission = admin::parse_submission(value, config_with_tasks(), kNow, admin::slice_member(bytes, "payload"));
  CHECK(submission || !submission.error().detail.empty());
  if (!submission) return;
  const task::Spec& spec = submission->spec;
  CHECK(config_with_tasks().find_queue(spec.queue) != nullptr && base::is_pool_name(spec.type));
  CHECK(spec.timeout >= 1 && spec.failures_max >= 1 && (spec.deadline == 0 || spec.deadline > kNow));
  CHECK(value.contains("payload") && !value["payload"].is_null() ? dispatch::parse_json(spec.payload) == value["payload"]
                                                                 : spec.payload == "{}" || spec.payload == "null");
}

void registration(std::string_view bytes) {
  const auto announcement = admin::parse_announcement(bytes);
  CHECK(announcement || !announcement.error().detail.empty());
  if (!announcement) return;
  CHECK(http::is_authority(announcement->address) && http::host_of(announcement->address) != announcement->address);
  CHECK(announcement->name.empty() || base::is_replica_name(announcement->name));
  CHECK(announcement->ttl >= base::Duration::zero() && announcement->ttl <= std::chrono::hours(24));
}

void link(std::string_view bytes) {
  const auto message = link::decode(bytes);
  if (!message) return;
  const std::string text = link::encode(*message);
  const auto again = link::decode(text);
  CHECK(again && link::encode(*again) == text);
}

void state_file(std::string_view bytes) {
  const std::string given(bytes);
  simulate([&](io::SimProcess& process) -> io::Async<void> {
    auto state = supervise::StateFile::open(*process.systems[0], "/s");
    CHECK(state.has_value());
    auto& files = process.world.files;
    files["/s/children.json"] = given;
    state->kill_leftovers();
    files["/s/desired.json"] = given;
    const auto desired = state->load();
    CHECK(desired.has_value());
    if (files.contains("/s/desired.json.damaged")) {
      CHECK(desired->empty() && files["/s/desired.json.damaged"] == given);
      co_return;
    }
    const std::string text = supervise::StateFile::text_of(*desired);
    CHECK(state->save(text));
    const auto again = state->load();
    CHECK(again && supervise::StateFile::text_of(*again) == text);
  });
}

}  // namespace ringmaster::fuzz
