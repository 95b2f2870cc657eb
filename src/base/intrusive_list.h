// A doubly linked list whose links live inside its elements: no allocation, O(1) removal from anywhere, and an
// element leaves its list when it is destroyed. One element may be in several lists, one per Tag.
#pragma once

namespace ringmaster::base {

template <class Tag>
class Link {
 public:
  Link() = default;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link() { unlink(); }

  bool linked() const { return next_ != this; }
  void unlink() {
    prev_->next_ = next_;
    next_->prev_ = prev_;
    prev_ = next_ = this;
  }

 private:
  template <class T, class TagOfList>
  friend class IntrusiveList;
  Link* prev_ = this;
  Link* next_ = this;
};

template <class T, class Tag>
class IntrusiveList {
 public:
  bool empty() const { return !head_.linked(); }
  T* front() { return empty() ? nullptr : static_cast<T*>(head_.next_); }
  T* back() { return empty() ? nullptr : static_cast<T*>(head_.prev_); }

  void push_back(T& element) { insert_before(head_, element); }
  void push_front(T& element) { insert_before(*head_.next_, element); }

  T* pop_front() {
    T* first = front();
    if (first != nullptr) static_cast<Link<Tag>*>(first)->unlink();
    return first;
  }

  // Takes all of `other`'s elements, in order, to this list's end.
  void splice_back(IntrusiveList& other) {
    if (other.empty()) return;
    Link<Tag>* first = other.head_.next_;
    Link<Tag>* last = other.head_.prev_;
    other.head_.next_ = other.head_.prev_ = &other.head_;
    first->prev_ = head_.prev_;
    head_.prev_->next_ = first;
    last->next_ = &head_;
    head_.prev_ = last;
  }

  // The first that f(element) is true of, or null.
  template <class F>
  T* find(F f) {
    for (Link<Tag>* at = head_.next_; at != &head_; at = at->next_) {
      if (f(*static_cast<T*>(at))) return static_cast<T*>(at);
    }
    return nullptr;
  }

  // Calls f(element) for each; f may remove the element it is given, and no other.
  template <class F>
  void for_each(F f) {
    for (Link<Tag>* at = head_.next_; at != &head_;) {
      Link<Tag>* next = at->next_;
      f(*static_cast<T*>(at));
      at = next;
    }
  }

 private:
  static void insert_before(Link<Tag>& where, T& element) {
    Link<Tag>& link = element;
    link.unlink();
    link.prev_ = where.prev_;
    link.next_ = &where;
    where.prev_->next_ = &link;
    where.prev_ = &link;
  }

  Link<Tag> head_;
};

}  // namespace ringmaster::base
