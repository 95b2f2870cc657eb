#include "lab/report.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/check.h"
#include "io/process.h"
#include "lab/page.h"
#include "lab/picture.h"

namespace ringmaster::lab {

using base::Result;
using io::Async;

static constexpr unsigned kFolderMode = 0755;

std::size_t Table::column(std::string_view column_name) const {
  const auto found = std::ranges::find(columns, column_name);
  CHECK(found != columns.end());
  return static_cast<std::size_t>(found - columns.begin()) + 1;
}

std::string cell(double value, int digits) {
  if (!std::isfinite(value)) return {};
  std::array<char, 400> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, digits).ptr;
  return {text.data(), end};
}

std::string cell(std::uint64_t value) { return std::to_string(value); }

// Text from servers and command lines may be in it: whatever is no UTF-8 is replaced.
static std::string dump(const json& value) { return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n"; }

// RFC 4180: what has a comma or a quote in it is quoted.
static std::string to_csv(const Table& table) {
  std::string text;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) text += ',';
      if (cells[i].find_first_of(",\"\n") == std::string::npos) {
        text += cells[i];
        continue;
      }
      text += '"';
      for (const char c : cells[i]) text += c == '"' ? std::string("\"\"") : std::string(1, c);
      text += '"';
    }
    text += '\n';
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  return text;
}

Report::Report(io::Loop& loop, std::string folder, json run) : loop_(loop), folder_(std::move(folder)), run_(std::move(run)) {}

Result<void> Report::write(const std::string& name, std::string_view text) { return loop_.system().replace_file(folder_ + "/" + name, text, false); }

Result<void> Report::open() {
  io::System& system = loop_.system();
  const auto earlier = system.read_file(folder_ + "/run.json");
  const json known = earlier ? json::parse(*earlier, nullptr, false) : json();
  const bool ours = known.is_object() && known.contains("experiments");
  for (const char* name : {"run.json", "report.html"}) {
    if (!ours && system.read_file(folder_ + "/" + name)) {
      return base::fail(base::Code::exists, folder_ + "/" + name + " is there and is not of a report of the lab: choose another folder");
    }
  }
  for (const std::string& folder : {folder_, folder_ + "/csv", folder_ + "/pictures"}) {
    if (const auto made = system.make_directory(folder, kFolderMode, false); !made) return made;
  }
  if (ours) {
    system.clear_directory(folder_ + "/csv");
    system.clear_directory(folder_ + "/pictures");
  }
  system.remove_file(folder_ + "/report.html");
  return write("run.json", dump(run_));
}

Async<void> Report::draw(const Picture& picture, Section& section) {
  if (!trouble_.empty()) co_return;
  static constexpr base::Duration kTime = std::chrono::minutes(1);
  io::SpawnRequest request;
  request.argv = {"gnuplot", "pictures/" + picture.name + ".gp"};
  request.directory = folder_;
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nobody writes it
  if (path != nullptr) request.environment = {std::string("PATH=") + path};
  auto child = loop_.system().spawn(request);
  if (!child) {
    trouble_ = "gnuplot could not be run (" + base::describe(child.error()) +
               "): there are no pictures, but all figures are in csv/. Debian: apt-get install gnuplot-nox";
    co_return;
  }
  io::Process gnuplot(loop_, std::move(*child));
  std::string said;
  io::Scope reading(loop_);
  reading.spawn(io::read_lines(loop_, gnuplot.take_output(), [&](std::string_view line) {
    if (said.size() < 500) said += (said.empty() ? "" : " ") + std::string(line);
  }));
  auto status = co_await gnuplot.wait(loop_.now() + kTime);
  if (!status) {
    gnuplot.signal(9);
    status = co_await gnuplot.wait(base::kNever);
  }
  co_await reading.join();
  if (!status || status->code != 0 || status->signal != 0) section.faults.push_back("the picture " + picture.name + " could not be drawn: " + said);
}

Async<Result<void>> Report::add(Section section) {
  for (const Table& table : section.tables) {
    const auto written = write("csv/" + table.name + ".csv", to_csv(table));
    if (!written) co_return written;
  }
  for (const Picture& picture : section.pictures) {
    const auto written = write("pictures/" + picture.name + ".gp", picture_head(picture.name, picture.title) + picture.script);
    if (!written) co_return written;
    co_await draw(picture, section);
  }
  json entry = {{"title", section.title},
                {"done", section.done},
                {"outcome", section.outcome},
                {"why", section.why},
                {"numbers", section.numbers},
                {"faults", section.faults},
                {"interrupted", section.interrupted},
                {"seconds", section.seconds},
                {"configuration", section.configuration}};
  for (const Picture& picture : section.pictures) entry["pictures"].push_back({{"name", picture.name}, {"title", picture.title}});
  run_["experiments"][section.name] = std::move(entry);
  sections_.push_back(std::move(section));
  const auto run_written = write("run.json", dump(run_));
  if (!run_written) co_return run_written;
  PageParts parts{run_, sections_, trouble_, {}};
  for (const Section& each : sections_) {
    for (const Picture& picture : each.pictures) {
      if (auto svg = loop_.system().read_file(folder_ + "/pictures/" + picture.name + ".svg")) parts.pictures[picture.name] = std::move(*svg);
    }
  }
  co_return write("report.html", page(parts));
}

}  // namespace ringmaster::lab
