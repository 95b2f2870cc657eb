// CHECK(condition): an invariant of our own code. On in every build; never used for input.
#pragma once

namespace ringmaster::base {
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
}  // namespace ringmaster::base

#define CHECK(condition)                                                \
  do {                                                                  \
    if (!(condition)) [[unlikely]]                                      \
      ::ringmaster::base::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
