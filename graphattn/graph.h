// Grouping edges by one of their ends.
#pragma once

#include <cstdint>

namespace graphattn {

// Stable counting sort in O(E + nodes): the edges of node n become edges[ptr[n] .. ptr[n + 1]), in their old order, and
// grouped_others the nodes at their other ends. ptr has nodes + 1 places. False if an end is no node, or
// none of the other_nodes: nothing is grouped then.
bool group_edges(const int64_t *ends, const int64_t *others, int64_t num_edges, int64_t nodes,
                 int64_t other_nodes, int threads, int64_t *ptr, int64_t *edges, int64_t *grouped_others);

}  // namespace graphattn
