// What experiments found, as a folder: report.html (whole in itself), run.json, csv/ and pictures/.
//
// An experiment fills a Section; the Report writes all of them after each, so that what was measured is kept whatever
// comes next. CSV files need nothing; pictures need gnuplot, and are left out with a word if it is not there.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/loop.h"

namespace ringmaster::lab {

using json = nlohmann::ordered_json;

// A series of figures: csv/NAME.csv, its first line the names of its columns.
struct Table {
  std::string name;
  std::string title;  // in the report
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  bool shown = false;  // in the report, beside its file

  void add(std::vector<std::string> row) { rows.push_back(std::move(row)); }
  // gnuplot's number of the column; it must be there.
  std::size_t column(std::string_view column_name) const;
};

// Cells of tables. `digits` after the point; "" where there is no value (not a number).
std::string cell(double value, int digits = 3);
std::string cell(std::uint64_t value);

// pictures/NAME.svg, drawn by pictures/NAME.gp from the tables' files.
struct Picture {
  std::string name;
  std::string title;   // says what is seen
  std::string script;  // gnuplot's, after the common head (picture.h)
};

struct Section {
  std::string name;
  std::string title;
  std::string done;     // what was done, …
  std::string outcome;  // what came out, …
  std::string why;      // and why: a sentence each
  std::vector<Table> tables;
  std::vector<Picture> pictures;
  json numbers = json::object();    // the figures that two reports are compared by: name → number
  std::string configuration;        // of the Ringmasters that it ran against
  std::vector<std::string> faults;  // what was not as it should be
  bool interrupted = false;
  double seconds = 0;

  void configured(const std::string& what, const std::string& text) { configuration += "# " + what + "\n" + text + "\n"; }
};

class Report {
 public:
  Report(io::Loop& loop, std::string folder, json run);

  // Makes the folder. What an earlier report left there is removed. Error: it cannot be written, or has a report.html or
  // run.json that is not ours.
  base::Result<void> open();
  // Adds a section, draws its pictures and writes all files anew. Error: the disk is full, …
  io::Async<base::Result<void>> add(Section section);
  std::string page_path() const { return folder_ + "/report.html"; }
  const std::string& trouble() const { return trouble_; }  // why there are no pictures; empty: there are

 private:
  io::Async<void> draw(const Picture& picture, Section& section);
  base::Result<void> write(const std::string& name, std::string_view text);

  io::Loop& loop_;
  std::string folder_;
  json run_;
  std::vector<Section> sections_;
  std::string trouble_;
};

}  // namespace ringmaster::lab
