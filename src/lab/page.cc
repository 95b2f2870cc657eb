#include "lab/page.h"

#include "base/json.h"
#include "base/names.h"

namespace ringmaster::lab {

static std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&': safe += "&amp;"; break;
      case '<': safe += "&lt;"; break;
      case '>': safe += "&gt;"; break;
      case '"': safe += "&quot;"; break;
      default: safe += c;
    }
  }
  return safe;
}

static constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ink: #222222; --paper: #ffffff; --soft: #f3f3f1; --grid: #cccccc; --quiet: #666666; --bad: #a3271d }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e4df; --paper: #16181b; --soft: #22252a; --grid: #444950; --quiet: #a0a4ab; --bad: #ff9a8d } }
@media print { :root { --ink: #000000; --paper: #ffffff; --soft: #ffffff; --grid: #bbbbbb; --quiet: #444444; --bad: #7a0000 }
  section { break-inside: avoid-page } nav { display: none } details { display: none } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.6rem; margin: .5rem 0 } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-top: 1px solid var(--grid); padding-top: 1rem }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0 } a { color: inherit }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: .75rem 0 } dt { color: var(--quiet) } dd { margin: 0 }
figure { margin: 1rem 0; overflow-x: auto } figure svg { display: block; width: 100%; min-width: 36rem; height: auto }
.wide { overflow-x: auto; margin: 1rem 0 } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--quiet); padding: .25rem 0 } th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap }
th:first-child, td:first-child { text-align: left } .fault { color: var(--bad); font-weight: 600 } .quiet { color: var(--quiet); font-size: .9rem }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; font-size: .85rem }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr } dt { margin-top: .5rem } }
)";

// gnuplot's picture as part of the page: in the page's ink, on the page's paper, with ids of its own.
static std::string inlined(std::string svg, const std::string& name, const std::string& title) {
  const std::size_t begin = svg.find("<svg");
  if (begin == std::string::npos) return {};
  svg.erase(0, begin);
  for (const auto& [from, to] : {std::pair{"#222222", "var(--ink)"},
                                 {"rgb( 34,  34,  34)", "var(--ink)"},
                                 {"rgb(34,34,34)", "var(--ink)"},
                                 {"color=\"black\"", "color=\"var(--ink)\""},
                                 {"rgb(204, 204, 204)", "var(--grid)"},
                                 {"#cccccc", "var(--grid)"},
                                 {"rgb(255, 255, 255)", "var(--paper)"},
                                 {"#ffffff", "var(--paper)"}}) {
    svg = base::replace_all(svg, from, to);
  }
  svg = base::replace_all(svg, " id='", " id='" + name + "-");
  svg = base::replace_all(svg, " id=\"", " id=\"" + name + "-");
  svg = base::replace_all(svg, "href='#", "href='#" + name + "-");
  svg = base::replace_all(svg, "url(#", "url(#" + name + "-");
  svg.insert(4, " role=\"img\" aria-label=\"" + escaped(title) + "\"");
  return svg;
}

static std::string shown(const Table& table) {
  std::string text = "<div class=\"wide\"><table><caption>" + escaped(table.title) + "</caption><tr>";
  for (const std::string& column : table.columns) text += "<th>" + escaped(column) + "</th>";
  text += "</tr>\n";
  for (const auto& row : table.rows) {
    text += "<tr>";
    for (const std::string& each : row) text += "<td>" + escaped(each) + "</td>";
    text += "</tr>\n";
  }
  return text + "</table></div>\n";
}

static std::string section_of(const Section& section, const PageParts& parts) {
  std::string text = "<section id=\"" + escaped(section.name) + "\"><h2>" + escaped(section.title) + "</h2>\n";
  if (section.interrupted) text += "<p class=\"fault\">This was ended before its time; what follows is what had been measured by then.</p>\n";
  for (const std::string& fault : section.faults) text += "<p class=\"fault\">" + escaped(fault) + "</p>\n";
  text += "<dl><dt>What was done</dt><dd>" + escaped(section.done) + "</dd><dt>What came out</dt><dd>" + escaped(section.outcome) + "</dd><dt>Why</dt><dd>" +
          escaped(section.why) + "</dd></dl>\n";
  for (const Picture& picture : section.pictures) {
    const auto drawn = parts.pictures.find(picture.name);
    if (drawn != parts.pictures.end()) text += "<figure>" + inlined(drawn->second, picture.name, picture.title) + "</figure>\n";
  }
  for (const Table& table : section.tables) {
    if (table.shown) text += shown(table);
  }
  text += "<p class=\"quiet\">Figures:";
  for (const Table& table : section.tables) text += " <a href=\"csv/" + table.name + ".csv\">" + escaped(table.name) + ".csv</a>";
  text += "; " + cell(section.seconds, 1) + " s; again: <code>ringmaster lab " + escaped(section.name) + (parts.run.value("quick", false) ? " --quick" : "") +
          "</code></p>\n";
  if (!section.configuration.empty()) {
    text += "<details><summary>The configuration</summary><pre>" + escaped(section.configuration) + "</pre></details>\n";
  }
  return text + "</section>\n";
}

std::string page(const PageParts& parts) {
  const auto fact = [&](const char* name) {
    return parts.run.contains(name) && parts.run[name].is_string() ? escaped(parts.run[name].get<std::string>()) : "";
  };
  std::string text =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<title>Ringmaster lab report</title><style>" +
      std::string(kStyle) + "</style></head><body>\n<h1>Ringmaster lab report</h1>\n<p class=\"quiet\">" + fact("version") + "; " + fact("started") + "; " +
      fact("machine") + "; seed " + (parts.run.contains("seed") ? base::json_text(parts.run["seed"]) : "") + "; <code>" + fact("command") +
      "</code>; all of it: <a href=\"run.json\">run.json</a></p>\n";
  if (!parts.trouble.empty()) text += "<p class=\"fault\">" + escaped(parts.trouble) + "</p>\n";
  text += "<nav>";
  for (const Section& section : parts.sections) text += "<a href=\"#" + section.name + "\">" + escaped(section.name) + "</a>";
  text += "</nav>\n";
  for (const Section& section : parts.sections) text += section_of(section, parts);
  return text + "</body></html>\n";
}

}  // namespace ringmaster::lab
