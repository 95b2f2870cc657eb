#include "lab/picture.h"

#include <array>

#include "base/names.h"

namespace ringmaster::lab {

// Of middling lightness, so that they are seen on white and on black.
static constexpr std::array kColours = {"#2f6fb5", "#c8701a", "#3f8f5f", "#8a5fb0", "#b54545", "#6f7f8f", "#2f9fa5", "#9f8f2f"};
static constexpr std::array kMarks = {5, 7, 9, 13, 4, 6, 8, 12};
static constexpr std::array kPatterns = {3, 1, 2, 5, 4, 6, 7, 0};

static std::string colour(std::size_t i) { return kColours.at(i % kColours.size()); }

// In gnuplot's single quotes nothing but the quote itself is special.
static std::string quoted(const std::string& text) { return "'" + base::replace_all(text, "'", "''") + "'"; }

static std::string file_of(const Table& table) { return quoted("csv/" + table.name + ".csv"); }

std::string picture_head(const std::string& name, const std::string& title) {
  return "set terminal svg size 900,470 dynamic noenhanced font 'sans-serif,14' background '#ffffff'\n"
         "set output " +
         quoted("pictures/" + name + ".svg") +
         "\n"
         "set encoding utf8\nset datafile separator ','\nset datafile missing ''\n"
         "set border 3 lc rgb '#222222'\nset tics nomirror tc rgb '#222222'\nset grid ytics lc rgb '#cccccc' lt 1 lw 1\n"
         "set key outside right top vertical tc rgb '#222222' Left reverse\n"
         "set title " +
         quoted(title) + " tc rgb '#222222'\n";
}

static std::string labels(const Axes& axes) {
  std::string text = "set xlabel " + quoted(axes.x) + " tc rgb '#222222'\nset ylabel " + quoted(axes.y) + " tc rgb '#222222'\n";
  if (axes.log_x) text += "set logscale x\n";
  if (axes.log_y) {
    text += "set logscale y\n";
  } else {
    text += "set yrange [0:*]\n";
  }
  return text + axes.extra;
}

std::string bars(const Table& table, const std::string& label, const std::vector<std::string>& values, const Axes& axes) {
  std::string script = labels(axes) + "set style data histograms\nset style histogram clustered gap 1\nset boxwidth 0.9\n";
  if (values.size() == 1) script += "unset key\n";
  script += "plot ";
  for (std::size_t i = 0; i < values.size(); ++i) {
    script += (i == 0 ? "" : ", ") + file_of(table) + " skip 1 using " + std::to_string(table.column(values[i])) + ":xtic(" +
              std::to_string(table.column(label)) + ") title " + quoted(values[i]) + " lc rgb '" + colour(i) + "' fill pattern " +
              std::to_string(kPatterns.at(i % kPatterns.size()));
  }
  return script + "\n";
}

std::string lines(const Table& table, const std::string& x, const std::vector<std::string>& values, const Axes& axes, bool marks) {
  std::string script = labels(axes);
  if (values.size() == 1) script += "unset key\n";
  script += "plot ";
  for (std::size_t i = 0; i < values.size(); ++i) {
    script += (i == 0 ? "" : ", ") + file_of(table) + " skip 1 using " + std::to_string(table.column(x)) + ":" + std::to_string(table.column(values[i])) +
              " with " + (marks ? "linespoints pt " + std::to_string(kMarks.at(i % kMarks.size())) : "lines") + " lw 2 dt " + std::to_string(i % 5 + 1) +
              " lc rgb '" + colour(i) + "' title " + quoted(values[i]);
  }
  return script + "\n";
}

std::string map(const Table& table, const std::string& x, const std::string& row, const std::string& value, const std::vector<std::string>& rows,
                const Axes& axes, const std::string& value_label, double low, double high) {
  std::string script = labels({axes.x, axes.y, axes.log_x, true, "unset logscale y\n" + axes.extra});
  script += "set autoscale fix\nunset grid\nunset key\nset cblabel " + quoted(value_label) + " tc rgb '#222222'\nset cbrange [" + cell(low) + ":" + cell(high) +
            "]\nset logscale cb\nset cbtics (1, 1.25, 1.5, 2, 2.5, 3) tc rgb '#222222'\nset palette defined (0 '#f4efe6', 0.35 '#e0a95e', 0.7 '#a2402f', 1 "
            "'#31111d')\n"
            "set yrange [" +
            cell(static_cast<double>(rows.size()) - 0.5) + ":-0.5]\nset ytics (";
  for (std::size_t i = 0; i < rows.size(); ++i) script += (i == 0 ? "" : ", ") + quoted(rows[i]) + " " + std::to_string(i);
  script += ")\nplot " + file_of(table) + " skip 1 using " + std::to_string(table.column(x)) + ":" + std::to_string(table.column(row)) + ":" +
            std::to_string(table.column(value)) + " with image pixels\n";
  return script;
}

}  // namespace ringmaster::lab
