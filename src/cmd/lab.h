// `ringmaster lab`: experiments, load by itself, and the comparison of two reports.
#pragma once

#include <string>
#include <vector>

#include "lab/lab.h"

namespace ringmaster::cmd {

struct LabOptions {
  std::vector<std::string> experiments;
  std::string out = "lab-report";
  std::string url;           // of a Ringmaster that runs; empty: one of the lab's own
  bool own_target = false;   // it may be on another machine
  std::string command_line;  // for the report
  lab::Settings settings;
};
int run_lab(LabOptions options);

struct LoadOptions {
  std::string url;
  bool own_target = false;
  double seconds = 0;
  std::vector<std::string> paths;  // in turns, in place of the URL's
  double timeout_s = 10;
  bool poisson = false;
  bool json = false;
  lab::LoadPlan plan;
};
int run_load(LoadOptions options);

// Two reports' folders.
int run_compare(const std::string& before, const std::string& after);

}  // namespace ringmaster::cmd
