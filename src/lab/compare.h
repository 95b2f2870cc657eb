// Two reports side by side: every figure that both have, and what has become of it.
#pragma once

#include <string>

#include "io/system.h"

namespace ringmaster::lab {

// The folders of two reports, as text for a person. Error: one of them is no report.
base::Result<std::string> compare(io::System& system, const std::string& before, const std::string& after);

}  // namespace ringmaster::lab
