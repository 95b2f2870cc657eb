#include "proxy/access_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "base/log.h"

namespace ringmaster::proxy {

AccessLogFile::AccessLogFile(io::System& system, const config::AccessLog& settings)
    : system_(system), path_(settings.path), in_log_(settings.path == "-"), opened_at_(system.now()) {
  if (in_log_) return;
  auto opened = system.open_append(settings.path);
  if (opened) {
    file_ = std::move(*opened);
    fd_ = file_.fd();
  } else {
    base::log::error("no access log: {}", base::describe(opened.error()));
  }
}

AccessLogFile::~AccessLogFile() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return !writing_; });
}

void AccessLogFile::submit(io::System& system, std::string lines) {
  if (in_log_) {
    if (!base::log::raw(lines)) dropped_.fetch_add(lines.size(), std::memory_order_relaxed);
    return;
  }
  std::unique_lock lock(mutex_);
  if (fd_ < 0 || waiting_bytes_ + lines.size() > kWaitingBytesMax) {
    dropped_.fetch_add(lines.size(), std::memory_order_relaxed);
    return;
  }
  waiting_bytes_ += lines.size();
  waiting_.push_back(std::move(lines));
  if (std::exchange(writing_, true)) return;
  lock.unlock();
  system.run_in_background([this] { write_all(); });
}

// When the file has been renamed (logrotate), the next one is begun, without a signal.
void AccessLogFile::reopen_now_and_then() {
  static constexpr auto kEvery = std::chrono::seconds(10);
  const base::Time now = system_.now();
  if (!file_ || now - opened_at_ < kEvery) return;
  opened_at_ = now;
  if (auto opened = system_.open_append(path_)) {
    file_ = std::move(*opened);
    fd_.store(file_.fd());
  }
}

// On a thread of its own.
void AccessLogFile::write_all() {
  std::unique_lock lock(mutex_);
  while (!waiting_.empty()) {
    std::vector<std::string> batch;
    batch.swap(waiting_);
    waiting_bytes_ = 0;
    lock.unlock();
    reopen_now_and_then();
    for (const std::string& lines : batch) {
      if (!system_.append(fd_, lines)) dropped_.fetch_add(lines.size(), std::memory_order_relaxed);
    }
    lock.lock();
  }
  writing_ = false;
  idle_.notify_all();
}

AccessLog::AccessLog(io::Loop& loop, const config::AccessLog& settings, AccessLogFile* file) : loop_(loop), settings_(settings), file_(file), scope_(loop) {
  if (file_ != nullptr) scope_.spawn(flush_now_and_then());
}

io::Async<void> AccessLog::stop() {
  scope_.cancel();
  co_await scope_.join();
}

io::Async<void> AccessLog::flush_now_and_then() {
  while (true) {
    const base::Code slept = co_await loop_.sleep(std::chrono::seconds(1));
    flush();
    if (slept == base::Code::cancelled) co_return;
  }
}

void AccessLog::flush() {
  if (file_ == nullptr || buffer_.empty()) return;
  file_->submit(loop_.system(), std::exchange(buffer_, {}));
}

bool AccessLog::wants(unsigned status) {
  if (file_ == nullptr) return false;
  return settings_.sample >= 1 || status >= 500 || loop_.random().unit() < settings_.sample;
}

void AccessLog::add(const wire::Exchange& exchange, const AccessRecord& record) {
  if (settings_.format == config::AccessLog::Format::common) {
    add_common(exchange, record);
  } else {
    add_json(exchange, record);
  }
  if (buffer_.size() >= kBufferBytes) flush();
}

void AccessLog::add(const wire::Handler::Refused& refused) {
  const std::string client = base::address_text(refused.peer);
  if (settings_.format == config::AccessLog::Format::common) {
    append_common_start(client);
    fmt::format_to(std::back_inserter(buffer_), "\"-\" {} 0\n", refused.status);
  } else {
    append_json_start();
    fmt::format_to(std::back_inserter(buffer_), ",\"client\":\"{}\",\"reason\":\"{}\",\"status\":{},\"complete\":true}}\n", client, refused.why,
                   refused.status);
  }
  if (buffer_.size() >= kBufferBytes) flush();
}

// host - - [20/Nov/2026:14:00:00 +0000]
void AccessLog::append_common_start(std::string_view client) {
  const std::time_t now = std::chrono::system_clock::to_time_t(loop_.system().wall_now());
  fmt::format_to(std::back_inserter(buffer_), "{} - - [{:%d/%b/%Y:%H:%M:%S} +0000] ", client, fmt::gmtime(now));
}

void AccessLog::append_json_start() {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(loop_.system().wall_now().time_since_epoch()).count();
  fmt::format_to(std::back_inserter(buffer_), "{{\"time\":{}.{:03}", ms / 1000, ms % 1000);
}

// Into a quoted text, of the common format or of JSON: a client must not be able to forge a line (SECURITY E4).
static void append_escaped(std::string& out, std::string_view text, std::string_view escape) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      fmt::format_to(std::back_inserter(out), fmt::runtime(escape), byte);
    } else {
      if (c == '"' || c == '\\') out.push_back('\\');
      out.push_back(c);
    }
  }
}

// A client that left before its answer began has 499, as nginx has it.
static unsigned status_of(const wire::Exchange& exchange) { return exchange.status() == 0 ? 499 : exchange.status(); }

// host - - [20/Nov/2026:14:00:00 +0000] "GET /home HTTP/1.1" 200 14
void AccessLog::add_common(const wire::Exchange& exchange, const AccessRecord&) {
  const http::RequestHead& head = exchange.request();
  append_common_start(base::address_text(exchange.client()));
  buffer_.append("\"").append(head.method_text).append(" ");
  append_escaped(buffer_, head.path, "\\x{:02x}");
  append_escaped(buffer_, head.query, "\\x{:02x}");
  fmt::format_to(std::back_inserter(buffer_), " HTTP/1.{}\" {} {}\n", head.minor_version, status_of(exchange), exchange.body_bytes_sent());
}

void AccessLog::add_json(const wire::Exchange& exchange, const AccessRecord& record) {
  const http::RequestHead& head = exchange.request();
  const auto text = [&](std::string_view name, std::string_view value) {
    buffer_.append(",\"").append(name).append("\":\"");
    append_escaped(buffer_, value, "\\u{:04x}");
    buffer_.append("\"");
  };
  append_json_start();
  text("client", base::address_text(exchange.client()));
  text("method", head.method_text);
  text("host", head.authority);
  text("path", head.path);
  text("query", head.query);
  text("route", record.route);
  text("replica", record.replica);
  text("request_id", record.request_id);
  text("reason", record.reason);
  fmt::format_to(std::back_inserter(buffer_), ",\"status\":{},\"complete\":{},\"ms\":{:.3f},\"tries\":{},\"received\":{},\"sent\":{}}}\n", status_of(exchange),
                 exchange.finished(), base::to_ms(record.took), record.tries, exchange.body_bytes_received(), exchange.body_bytes_sent());
}

}  // namespace ringmaster::proxy
