#include "lab/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lab/picture.h"

namespace ringmaster::lab {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Cell, IsEmptyWhereThereIsNoValue) {
  EXPECT_EQ(cell(1.23456), "1.235");
  EXPECT_EQ(cell(1e20, 0), "100000000000000000000");
  EXPECT_EQ(cell(NAN), "");
  EXPECT_EQ(cell(INFINITY), "");
}

TEST(Page, ShowsWhatServersSaidAsTextAndNeverAsMarkup) {
  Section section;
  section.name = "distribution";
  section.faults = {"an answer from '<script>alert(1)</script>'"};
  section.tables = {{"t", "A & B", {"server"}, {{"\"><img src=x>"}}, true}};
  const std::vector<Section> sections = {section};
  const json run = {{"version", "Ringmaster <0>"}, {"seed", 7}};
  const std::string text = page({run, sections, {}, {}});
  EXPECT_THAT(text, Not(HasSubstr("<script>")));
  EXPECT_THAT(text, Not(HasSubstr("<img")));
  EXPECT_THAT(text, HasSubstr("A &amp; B"));
  EXPECT_THAT(text, HasSubstr("Ringmaster &lt;0&gt;"));
}

TEST(Page, HasItsPicturesInItself) {
  Section section;
  section.name = "slow";
  section.pictures = {{"slow", "A \"title\"", ""}, {"missing", "", ""}};
  const std::vector<Section> sections = {section};
  const json run = json::object();
  const std::string text =
      page({run, sections, {}, {{"slow", "<?xml version='1.0'?><svg width='900'><defs id='gpDot'/><use href='#gpDot' fill=\"rgb(34,34,34)\"/></svg>"}}});
  EXPECT_THAT(text, HasSubstr("aria-label=\"A &quot;title&quot;\""));
  EXPECT_THAT(text, HasSubstr("id='slow-gpDot'"));
  EXPECT_THAT(text, HasSubstr("href='#slow-gpDot'"));
  EXPECT_THAT(text, HasSubstr("var(--ink)"));
  EXPECT_THAT(text, Not(HasSubstr("<?xml")));
}

TEST(Picture, NamesWithQuotesStayText) {
  const Table table{"t", "", {"it's", "value"}, {}, false};
  const std::string script = bars(table, "it's", {"value"}, {"x 'of'", "y", false, false, {}});
  EXPECT_THAT(script, HasSubstr("'x ''of'''"));
  EXPECT_THAT(script, HasSubstr("using 2:xtic(1)"));
}

}  // namespace
}  // namespace ringmaster::lab
