#include "graph.h"

#include <cstddef>
#include <vector>

namespace graphattn {

// Each thread counts and then places a run of edges of its own; places are handed out node by node, and within a node
// run by run, so the order is the same for any number of threads.
bool group_edges(const int64_t *ends, const int64_t *others, int64_t num_edges, int64_t nodes,
                 int64_t other_nodes, int threads, int64_t *ptr, int64_t *edges, int64_t *grouped_others) {
  const int64_t useful = num_edges / (nodes + 4096);  // counting costs nodes a thread, placing edges
  const int64_t runs = threads < 1 || useful < 1 ? 1 : useful < threads ? useful : threads;
  std::vector<int64_t> places(std::size_t(runs) * nodes);
  bool good = true;
#pragma omp parallel for num_threads(int(runs)) reduction(&& : good) if (runs > 1)
  for (int64_t run = 0; run < runs; ++run) {
    int64_t *count = places.data() + run * nodes;
    for (int64_t e = num_edges * run / runs; e < num_edges * (run + 1) / runs; ++e) {
      if (ends[e] < 0 || ends[e] >= nodes || others[e] < 0 || others[e] >= other_nodes) {
        good = false;
        break;
      }
      ++count[ends[e]];
    }
  }
  if (!good) return false;
  int64_t place = 0;
  for (int64_t node = 0; node < nodes; ++node) {
    ptr[node] = place;
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t count = places[run * nodes + node];
      places[run * nodes + node] = place;
      place += count;
    }
  }
  ptr[nodes] = place;
#pragma omp parallel for num_threads(int(runs)) if (runs > 1)
  for (int64_t run = 0; run < runs; ++run) {
    int64_t *next = places.data() + run * nodes;
    for (int64_t e = num_edges * run / runs; e < num_edges * (run + 1) / runs; ++e) {
      const int64_t to = next[ends[e]]++;
      edges[to] = e;
      grouped_others[to] = others[e];
    }
  }
  return true;
}

}  // namespace graphattn
