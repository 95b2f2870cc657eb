#include "base/check.h"

#include <cstdio>
#include <cstdlib>

#include "base/log.h"

namespace ringmaster::base {

void check_failed(const char* file, int line, const char* condition) {
  log::flush();
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
  std::abort();
}

}  // namespace ringmaster::base
