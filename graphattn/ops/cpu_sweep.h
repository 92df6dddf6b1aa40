// Who walks which edges: one driver for all passes.
#pragma once

#include <stdlib.h>
#include <string.h>

#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "cpu_numbers.h"

namespace graphattn {
namespace GRAPHATTN_ISA {
namespace {

// Work is cut into tasks by the graph alone, never by the number of threads: runs of light nodes, and pieces of nodes
// with more edges than a task should have, whose partial states are merged in order at the end.

template <class A>
struct Array {
  explicit Array(size_t size) : at(static_cast<A *>(malloc(size * sizeof(A) + 64))) {
    if (!at) throw std::bad_alloc();
  }
  ~Array() { free(at); }
  Array(const Array &) = delete;
  void operator=(const Array &) = delete;
  A *at;
};

struct Task {
  int64_t node, end_node;  // [node, end_node)
  int64_t edge, end_edge;  // positions in the order, of a piece of one node
  int64_t slot;            // where a piece leaves its state, or -1
};

struct Tasks {
  explicit Tasks(const Order &order)
      : grain(max_of(1024, (order.size() + order.nodes) / 1024)), list(count(order, nullptr)) {
    tasks = count(order, list.at);
  }

  static int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

  // How many tasks there are; writes them where `to` is not null.
  int64_t count(const Order &order, Task *to) {
    int64_t made = 0, start = 0, weight = 0;
    pieces = 0;
    auto close = [&](int64_t end) {
      if (end > start && to) to[made] = {start, end, order.ptr[start], order.ptr[end], -1};
      made += end > start;
      start = end, weight = 0;
    };
    for (int64_t node = 0; node < order.nodes; ++node) {
      const int64_t begin = order.ptr[node], end = order.ptr[node + 1];
      if (end - begin > 2 * grain) {
        close(node);
        for (int64_t edge = begin; edge < end; edge += grain, ++made, ++pieces)
          if (to) to[made] = {node, node + 1, edge, edge + grain < end ? edge + grain : end, pieces};
        start = node + 1;
      } else if ((weight += end - begin + 1) >= grain) {
        close(node + 1);
      }
    }
    close(order.nodes);
    return made;
  }

  int64_t grain, tasks = 0, pieces = 0;
  Array<Task> list;
};

INLINE int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Runs `body` over all nodes of `order`. Its state is `body.state` numbers:
//   start(state)                             no edges yet
//   edges(state, node, begin, end, scratch, task)  takes in the edges at positions [begin, end)
//   merge(state, other)                      takes in what another piece of the same node has taken in
//   finish(state, node)                      writes the node's result
template <class A, class Body>
void sweep(const Order &order, const Tasks &tasks, int threads, const Body &body) {
  const int64_t each = (body.state + body.scratch + 31) / 16 * 16;  // whole cache lines, so that none is shared
  if (threads > tasks.tasks) threads = tasks.tasks < 1 ? 1 : int(tasks.tasks);
  Array<A> workspace(size_t(each) * threads), parts(size_t(body.state) * tasks.pieces);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t t = 0; t < tasks.tasks; ++t) {
    const Task &task = tasks.list.at[t];
    A *own = workspace.at + each * thread_number(), *scratch = own + body.state;
    if (task.slot >= 0) {
      A *part = parts.at + task.slot * body.state;
      body.start(part);
      body.edges(part, task.node, task.edge, task.end_edge, scratch, t);
      continue;
    }
    for (int64_t node = task.node; node < task.end_node; ++node) {
      body.start(own);
      body.edges(own, node, order.ptr[node], order.ptr[node + 1], scratch, t);
      body.finish(own, node);
    }
  }
  for (int64_t t = 0; t < tasks.tasks; ++t) {
    const Task &task = tasks.list.at[t];
    if (task.slot < 0) continue;
    A *first = parts.at + task.slot * body.state;
    for (; t + 1 < tasks.tasks && tasks.list.at[t + 1].slot >= 0 && tasks.list.at[t + 1].node == task.node; ++t)
      body.merge(first, parts.at + tasks.list.at[t + 1].slot * body.state);
    body.finish(first, task.node);
  }
}

template <class A>
INLINE void clear(A *at, int64_t size) {
  memset(at, 0, size * sizeof(A));
}

template <class A>
INLINE void add_to(A *__restrict__ to, const A *__restrict__ from, int64_t size) {
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) to[k] += from[k];
}

template <class T>
INLINE void write(T *__restrict__ to, const Sum<T> *__restrict__ from, int64_t size) {
#pragma omp simd
  for (int64_t k = 0; k < size; ++k) store(to + k, from[k]);
}

template <class T>
INLINE void fetch(const T *row, int64_t size) {
  for (const char *at = reinterpret_cast<const char *>(row), *end = reinterpret_cast<const char *>(row + size); at < end;
       at += 64)
    PREFETCH(at);
}

}  // namespace
}  // namespace GRAPHATTN_ISA
}  // namespace graphattn
