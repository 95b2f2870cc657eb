// gnuplot scripts for the usual kinds of pictures, from a table's file. Readable without colour: lines differ by their marks
// and dashes, bars by their patterns, maps by their lightness.
#pragma once

#include "lab/report.h"

namespace ringmaster::lab {

struct Axes {
  std::string x;  // what it is, with its unit
  std::string y;
  bool log_x = false;
  bool log_y = false;
  std::string extra;  // more of gnuplot's commands
};

// Common to all pictures; the report's page knows its colours (see page.cc).
std::string picture_head(const std::string& name, const std::string& title);

// A group of bars for each row, named by the column `label`; a bar in it for each of `values`.
std::string bars(const Table& table, const std::string& label, const std::vector<std::string>& values, const Axes& axes);
// A line for each of `values` over the column `x`.
std::string lines(const Table& table, const std::string& x, const std::vector<std::string>& values, const Axes& axes, bool marks = true);
// Rectangles: light is low, dark is high. `table` has a row for each cell; `rows` are the names of the map's rows by their number.
std::string map(const Table& table, const std::string& x, const std::string& row, const std::string& value, const std::vector<std::string>& rows,
                const Axes& axes, const std::string& value_label, double low, double high);

}  // namespace ringmaster::lab
