// The report as one page, whole in itself: style and pictures are in it. Light and dark, for a screen of any width and for paper.
#pragma once

#include <map>

#include "lab/report.h"

namespace ringmaster::lab {

struct PageParts {
  const json& run;
  const std::vector<Section>& sections;
  std::string trouble;                          // why there are no pictures
  std::map<std::string, std::string> pictures;  // SVG by name
};
std::string page(const PageParts& parts);

}  // namespace ringmaster::lab
