// Draws neighbours of neighbours: what a mini-batch needs of a graph too large to train on as a whole.
#pragma once

#include <cstdint>
#include <vector>

namespace graphattn {

// Edges of one kind, grouped by the node they enter: those of node n are ptr[n] .. ptr[n + 1].
struct EdgeKind {
  int source, target;         // kinds of nodes
  const int64_t *ptr;         // [nodes of the target kind + 1]
  const int64_t *neighbours;  // [edges]: the nodes at their other ends; by time within a node if times matter
  const double *weights;      // [edges], or null: all alike
  const int64_t *times;       // [edges], or null
  std::vector<int64_t> wanted;  // how many neighbours a node, hop by hop; below 0: all
};

struct NodeKind {
  int64_t nodes;
  const int64_t *times;  // [nodes], or null
};

struct Seeds {
  int kind;
  const int64_t *nodes;
  const int64_t *times;  // or null: the nodes' own
  int64_t count;
};

struct Wish {
  bool replace;   // a neighbour may be drawn twice
  bool induced;   // all edges between the nodes found, not only those drawn
  bool disjoint;  // each seed has nodes of its own
  bool last;      // with times: the latest neighbours instead of any
  uint64_t seed;
};

// Nodes of a kind in the order they were found, and of each the seed it was found for; the seeds come first.
struct FoundNodes {
  std::vector<int64_t> nodes, seed;
  std::vector<int64_t> per_hop;  // the seeds, then hop by hop
};

// Edges of a kind: positions of their ends among the found nodes, and which edges they are.
struct FoundEdges {
  std::vector<int64_t> sources, targets, edges;
  std::vector<int64_t> per_hop;
};

struct Sample {
  std::vector<FoundNodes> nodes;
  std::vector<FoundEdges> edges;
};

// With times (of nodes or edges), a seed's sample holds nothing that is later than the seed; it must be disjoint then.
Sample sample(const std::vector<NodeKind> &nodes, const std::vector<EdgeKind> &edges, const std::vector<Seeds> &seeds,
              const Wish &wish);

}  // namespace graphattn
