// The experiments, each in a file of its own name. They fill their section as they go, so that one that is interrupted, or
// fails in the middle, keeps what it has measured. Error: why it could not go on.
#pragma once

#include "lab/lab.h"

namespace ringmaster::lab {

Async<Result<void>> classic(Lab& lab, Section& section);
Async<Result<void>> distribution(Lab& lab, Section& section);
Async<Result<void>> scaling(Lab& lab, Section& section);
Async<Result<void>> recovery(Lab& lab, Section& section);
Async<Result<void>> functions(Lab& lab, Section& section);
Async<Result<void>> churn(Lab& lab, Section& section);
Async<Result<void>> phases(Lab& lab, Section& section);
Async<Result<void>> hotkey(Lab& lab, Section& section);
Async<Result<void>> slow(Lab& lab, Section& section);
Async<Result<void>> overload(Lab& lab, Section& section);

}  // namespace ringmaster::lab
