// Intrusive containers. They own nothing: the element must outlive its membership.
#pragma once

#include <cstddef>
#include <iterator>

#include "util/assert.h"

namespace varve {

// Base of an element of list<T>; a T may derive from several with different tags. Unlinks itself when destroyed.
template <class Tag = void>
class list_node {
  public:
    list_node() noexcept = default;
    list_node(const list_node&) = delete;
    list_node& operator=(const list_node&) = delete;
    ~list_node() { unlink(); }

    bool linked() const noexcept { return _next != this; }
    void unlink() noexcept {
        _prev->_next = _next;
        _next->_prev = _prev;
        _next = _prev = this;
    }

  private:
    template <class, class>
    friend class list;
    list_node* _next = this;
    list_node* _prev = this;
};

template <class T, class Tag = void>
class list {
    using node = list_node<Tag>;

  public:
    class iterator {
      public:
        using iterator_category = std::bidirectional_iterator_tag;
        using value_type = T;
        using difference_type = std::ptrdiff_t;
        using pointer = T*;
        using reference = T&;
        iterator() = default;
        explicit iterator(node* at) noexcept : _at(at) {}
        T& operator*() const noexcept { return *static_cast<T*>(_at); }
        T* operator->() const noexcept { return static_cast<T*>(_at); }
        iterator& operator++() noexcept {
            _at = list::next(_at);
            return *this;
        }
        iterator operator++(int) noexcept {
            iterator old = *this;
            ++*this;
            return old;
        }
        bool operator==(const iterator&) const = default;

      private:
        node* _at = nullptr;
    };

    bool empty() const noexcept { return !_head.linked(); }
    iterator begin() noexcept { return iterator(_head._next); }
    iterator end() noexcept { return iterator(&_head); }
    T& front() noexcept {
        VARVE_ASSERT(!empty());
        return *begin();
    }
    void push_back(T& element) noexcept { link(element, _head._prev, &_head); }
    void push_front(T& element) noexcept { link(element, &_head, _head._next); }
    T* pop_front() noexcept {
        if (empty()) return nullptr;
        T& element = front();
        static_cast<node&>(element).unlink();
        return &element;
    }
    static void remove(T& element) noexcept { static_cast<node&>(element).unlink(); }
    // Counts by walking; for tests and reports.
    std::size_t size() noexcept {
        std::size_t n = 0;
        for (auto it = begin(); it != end(); ++it) ++n;
        return n;
    }

  private:
    static node* next(node* at) noexcept { return at->_next; }
    static void link(T& element, node* before, node* after) noexcept {
        node& n = element;
        VARVE_ASSERT(!n.linked());
        n._prev = before;
        n._next = after;
        before->_next = &n;
        after->_prev = &n;
    }
    node _head;
};

// First in, first out, linked through a member `T* next` (or another given): one pointer an element.
template <class T, T* T::* Next = &T::next>
class queue {
  public:
    bool empty() const noexcept { return _first == nullptr; }
    T* front() const noexcept { return _first; }
    void push(T& element) noexcept {
        element.*Next = nullptr;
        if (_first == nullptr) {
            _first = &element;
        } else {
            _last->*Next = &element;
        }
        _last = &element;
    }
    void push_front(T& element) noexcept {
        element.*Next = _first;
        if (_first == nullptr) _last = &element;
        _first = &element;
    }
    T* pop() noexcept {
        T* element = _first;
        if (element != nullptr) _first = element->*Next;
        return element;
    }
    // Takes the whole chain, linked through Next and ended by nullptr.
    T* take_all() noexcept {
        T* chain = _first;
        _first = _last = nullptr;
        return chain;
    }

  private:
    T* _first = nullptr;
    T* _last = nullptr;
};

}  // namespace varve
