#include "io/frame_pool.h"

#include <array>
#include <new>

namespace ringmaster::io {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static constexpr bool kPooled = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
static constexpr bool kPooled = false;
#else
static constexpr bool kPooled = true;
#endif
#else
static constexpr bool kPooled = true;
#endif

namespace {

constexpr std::size_t kClassBytes = 64;
constexpr std::size_t kClasses = 64;  // frames above 4 KiB go to the heap

struct FreeFrame {
  FreeFrame* next;
};

struct FreeLists {
  std::array<FreeFrame*, kClasses> heads{};
  ~FreeLists() {
    for (FreeFrame*& head : heads) {
      while (head != nullptr) {
        FreeFrame* frame = head;
        head = frame->next;
        ::operator delete(frame);
      }
    }
  }
};

thread_local FreeLists free_lists;

std::size_t class_of(std::size_t bytes) { return (bytes - 1) / kClassBytes; }

}  // namespace

void* allocate_frame(std::size_t bytes) {
  const std::size_t size_class = class_of(bytes);
  if (!kPooled || size_class >= kClasses) return ::operator new(bytes);
  FreeFrame*& head = free_lists.heads[size_class];
  if (head == nullptr) return ::operator new((size_class + 1) * kClassBytes);
  FreeFrame* frame = head;
  head = frame->next;
  return frame;
}

void free_frame(void* frame, std::size_t bytes) {
  const std::size_t size_class = class_of(bytes);
  if (!kPooled || size_class >= kClasses) {
    ::operator delete(frame);
    return;
  }
  FreeFrame*& head = free_lists.heads[size_class];
  head = new (frame) FreeFrame{head};
}

}  // namespace ringmaster::io
