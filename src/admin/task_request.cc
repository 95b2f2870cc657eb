#include "admin/task_request.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>

#include "base/json.h"
#include "base/names.h"
#include "http/characters.h"
#include "http/message.h"
#include "task/expression.h"

namespace ringmaster::admin {

using base::Code;
using base::Result;
using base::Source;
using nlohmann::json;
using task::Millis;

std::optional<Millis> parse_time(std::string_view text) {
  // YYYY-MM-DDTHH:MM:SS[.fff]Z
  static constexpr std::string_view kForm = "0000-00-00T00:00:00";
  if (text.size() < kForm.size() + 1 || !text.ends_with('Z') || text < "2000") return std::nullopt;
  for (std::size_t i = 0; i < kForm.size(); ++i) {
    if (kForm[i] == '0' ? !http::is(text[i], http::kDigit) : text[i] != kForm[i]) return std::nullopt;
  }
  const auto number = [&](std::size_t at, std::size_t length) {
    int value = 0;
    std::from_chars(text.data() + at, text.data() + at + length, value);
    return value;
  };
  using namespace std::chrono;
  const year_month_day date{year(number(0, 4)), month(static_cast<unsigned>(number(5, 2))), day(static_cast<unsigned>(number(8, 2)))};
  if (!date.ok() || number(11, 2) > 23 || number(14, 2) > 59 || number(17, 2) > 60) return std::nullopt;
  const auto whole = sys_days(date) + hours(number(11, 2)) + minutes(number(14, 2)) + seconds(number(17, 2));
  Millis millis = duration_cast<milliseconds>(whole.time_since_epoch()).count();
  const std::string_view fraction = text.substr(kForm.size(), text.size() - kForm.size() - 1);
  if (fraction.empty()) return millis;
  if (fraction.size() != 4 || fraction[0] != '.' || !http::all(fraction.substr(1), http::kDigit)) return std::nullopt;
  return millis + number(kForm.size() + 1, 3);
}

std::optional<std::string> query_value(std::string_view query, std::string_view name) {
  if (!query.empty()) query.remove_prefix(1);
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const std::size_t equals = std::min(pair.find('='), pair.size());
    if (pair.substr(0, equals) != name) continue;
    const std::string_view raw = pair.substr(std::min(equals + 1, pair.size()));
    std::string value;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      const bool escape = raw[i] == '%' && i + 2 < raw.size() && http::is(raw[i + 1], http::kHex) && http::is(raw[i + 2], http::kHex);
      if (escape) {
        value += static_cast<char>(http::hex_value(raw[i + 1]) * 16 + http::hex_value(raw[i + 2]));
        i += 2;
      } else {
        value += raw[i] == '+' ? ' ' : raw[i];
      }
    }
    return value;
  }
  return std::nullopt;
}

std::optional<unsigned> parse_wait(std::string_view prefer) {
  std::optional<unsigned> wait;
  http::for_each_element(prefer, [&](std::string_view element) {
    static constexpr std::string_view kWait = "wait=";
    unsigned seconds = 0;
    if (!element.starts_with(kWait)) return;
    const std::string_view digits = element.substr(kWait.size());
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
    if (error == std::errc{} && end == digits.data() + digits.size()) wait = seconds;
  });
  return wait;
}

namespace {

std::unexpected<base::Error> invalid(std::string why) { return base::fail(Code::invalid, std::move(why), Source::client); }

// Takes the members of an object one by one; the first fault counts.
class Members {
 public:
  explicit Members(const json& object) : object_(object) {}

  void text(const char* name, std::string& value, std::size_t bytes_max) {
    const json* member = find(name);
    if (member == nullptr) return;
    if (!member->is_string()) return complain(name, "must be text");
    if (member->get_ref<const std::string&>().size() > bytes_max) return complain(name, "has more than " + std::to_string(bytes_max) + " bytes");
    value = member->get<std::string>();
  }
  // False, and `value` left alone, if it is not there.
  bool number(const char* name, Millis& value, Millis least, Millis most) {
    const json* member = find(name);
    if (member == nullptr) return false;
    const auto read = number_of(object_, name, value, least, most);
    if (!read && fault_.empty()) fault_ = read.error().detail;
    value = read.value_or(value);
    return read.has_value();
  }
  // A time, given as such or as milliseconds from `now`.
  void time(const char* absolute, const char* relative, Millis now, Millis& value) {
    static constexpr Millis kLongest = 10LL * 365 * 24 * 3600 * 1000;
    Millis from_now = 0;
    const bool given = number(relative, from_now, 0, kLongest);
    if (given) value = now + from_now;
    const json* member = find(absolute);
    if (member == nullptr) return;
    const auto parsed = member->is_string() ? parse_time(member->get_ref<const std::string&>()) : std::nullopt;
    if (!parsed) return complain(absolute, "must be a time such as \"2026-01-31T12:00:00Z\"");
    if (given) return complain(absolute, "and " + std::string(relative) + " are two words for one thing: give one of them");
    value = *parsed;
  }
  const json* find(const char* name) {
    known_.at(static_cast<std::size_t>(known_count_++)) = name;
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  void complain(const std::string& name, const std::string& why) {
    if (fault_.empty()) fault_ = "'" + name + "' " + why;
  }
  Result<void> finish() {
    for (const auto& [name, value] : object_.items()) {
      if (std::find(known_.begin(), known_.begin() + known_count_, name) == known_.begin() + known_count_)
        complain(name.substr(0, 50), "is not a member of a task");
    }
    if (!fault_.empty()) return invalid(fault_);
    return {};
  }

 private:
  const json& object_;
  std::array<std::string_view, 20> known_;
  std::ptrdiff_t known_count_ = 0;
  std::string fault_;
};

Result<void> read_payload(const json* payload, std::string_view as_sent, const config::Config& config, task::Spec& spec) {
  spec.payload = payload == nullptr ? "{}" : as_sent.empty() ? base::json_text(*payload) : std::string(as_sent);
  if (spec.payload.size() > config.tasks.payload_bytes_max) {
    return base::fail(
        Code::too_large,
        "the payload has " + std::to_string(spec.payload.size()) + " bytes; at most " + std::to_string(config.tasks.payload_bytes_max) + " are taken",
        Source::client);
  }
  if (spec.type != "expression") return {};
  const bool has_one = payload != nullptr && payload->is_object() && payload->contains("expression") && payload->at("expression").is_string();
  if (!has_one) return invalid("'payload' needs an 'expression', such as {\"expression\":\"2*(3+4)\"}");
  if (const auto checked = task::check_expression(payload->at("expression").get_ref<const std::string&>()); !checked)
    return invalid("expression: " + checked.error().detail);
  return {};
}

}  // namespace

Result<Millis> number_of(const json& body, const char* name, Millis otherwise, Millis least, Millis most) {
  const auto found = body.find(name);
  if (found == body.end()) return otherwise;
  const bool fits = found->is_number_integer() && (!found->is_number_unsigned() || found->get<std::uint64_t>() <= INT64_MAX);
  if (!fits || found->get<Millis>() < least || found->get<Millis>() > most) {
    return invalid("'" + std::string(name) + "' must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return found->get<Millis>();
}

Result<Submission> parse_submission(const json& body, const config::Config& config, Millis now, std::string_view as_sent) {
  if (!body.is_object()) return invalid("a task must be a JSON object such as {\"type\":\"sleep\",\"payload\":{\"seconds\":1}}");
  Members members(body);
  Submission submission;
  task::Spec& spec = submission.spec;
  spec.queue = config.queues.front().name;
  members.text("queue", spec.queue, 32);
  const config::Queue* queue = config.find_queue(spec.queue);
  if (queue == nullptr) return base::fail(Code::not_found, "there is no queue '" + spec.queue.substr(0, 50) + "'", Source::client);
  members.text("type", spec.type, 32);
  if (!base::is_pool_name(spec.type)) members.complain("type", "must be 1 to 32 letters, digits, '_' or '-'");
  Millis number = 0;
  if (members.number("priority", number, -1000, 1000)) spec.priority = static_cast<int>(number);
  members.time("run_at", "delay_ms", now, spec.run_at);
  members.time("deadline", "deadline_ms", now, spec.deadline);
  if (spec.deadline != 0 && spec.deadline <= std::max(now, spec.run_at)) members.complain("deadline", "must lie after now, and after the time when it may run");
  spec.timeout = queue->timeout / std::chrono::milliseconds(1);
  members.number("timeout_ms", spec.timeout, 1, 24LL * 3600 * 1000);
  number = queue->failures_max;
  members.number("failures_max", number, 1, 1'000'000);
  spec.failures_max = static_cast<unsigned>(number);
  members.text("unique_key", spec.unique_key, 200);
  members.text("callback", spec.callback, 2000);
  if (!http::all(spec.callback, http::kTarget)) members.complain("callback", "is no URL");
  std::string admission = queue->now ? "now" : "queue";
  members.text("admission", admission, 10);
  submission.now = admission == "now";
  if (!submission.now && admission != "queue") members.complain("admission", "must be \"now\" or \"queue\"");
  if (submission.now && queue->pool.empty()) members.complain("admission", "\"now\" needs a queue with a pool: nobody knows when a pull worker comes");
  if (submission.now && spec.run_at > now) members.complain("admission", "\"now\" and a later time contradict each other");
  const json* payload = members.find("payload");
  if (const auto finished = members.finish(); !finished) return std::unexpected(finished.error());
  if (const auto read = read_payload(payload, as_sent, config, spec); !read) return std::unexpected(read.error());
  return submission;
}

}  // namespace ringmaster::admin
