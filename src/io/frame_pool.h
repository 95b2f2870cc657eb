// Memory for coroutine frames: per-thread free lists by size, so that a warm program allocates nothing for a call.
// A frame is freed on the thread that made it, since a fiber never leaves its loop. Sanitizer builds use the heap
// instead, so that they see every use after the end.
#pragma once

#include <cstddef>

namespace ringmaster::io {

void* allocate_frame(std::size_t bytes);
void free_frame(void* frame, std::size_t bytes);

}  // namespace ringmaster::io
