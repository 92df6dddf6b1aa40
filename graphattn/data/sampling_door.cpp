// The door between Python and the sampler: checks the arrays, lets go of the GIL, hands the results over.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sampling.h"

namespace nb = nanobind;

namespace graphattn {
namespace {

using Index = nb::ndarray<const int64_t, nb::ndim<1>, nb::device::cpu, nb::c_contig>;
using Reals = nb::ndarray<const double, nb::ndim<1>, nb::device::cpu, nb::c_contig>;
using Result = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;

[[noreturn]] void refuse(const std::string &why) { throw nb::value_error(why.c_str()); }

template <class Array>
auto pointer(const char *name, const std::optional<Array> &array, int64_t size) {
  if (array && int64_t(array->size()) != size)
    refuse(std::string(name) + " has " + std::to_string(array->size()) + " entries, needed " + std::to_string(size));
  return array ? array->data() : nullptr;
}

Result array_of(std::vector<int64_t> &&values) {
  auto *held = new std::vector<int64_t>(std::move(values));
  nb::capsule owner(held, [](void *p) noexcept { delete static_cast<std::vector<int64_t> *>(p); });
  return Result(held->data(), {held->size()}, owner);
}

// A graph whose arrays were checked once; it keeps them alive.
class Neighbourhoods {
 public:
  Neighbourhoods(std::vector<int64_t> num_nodes, std::vector<std::optional<Index>> node_times,
                 std::vector<std::pair<int, int>> ends, std::vector<Index> ptrs, std::vector<Index> neighbours,
                 std::vector<std::optional<Reals>> weights, std::vector<std::optional<Index>> edge_times)
      : node_times_(std::move(node_times)), edge_times_(std::move(edge_times)), ptrs_(std::move(ptrs)),
        neighbours_(std::move(neighbours)), weights_(std::move(weights)) {
    const std::size_t kinds = num_nodes.size(), edge_kinds = ends.size();
    if (node_times_.size() != kinds) refuse("node_times: needed one for each kind of node");
    if (ptrs_.size() != edge_kinds || neighbours_.size() != edge_kinds || weights_.size() != edge_kinds ||
        edge_times_.size() != edge_kinds)
      refuse("ptrs, neighbours, weights and edge_times: needed one for each kind of edge");
    for (std::size_t i = 0; i < kinds; ++i)
      nodes_.push_back({num_nodes[i], pointer("node_times", node_times_[i], num_nodes[i])});
    for (std::size_t k = 0; k < edge_kinds; ++k) {
      const auto [source, target] = ends[k];
      if (source < 0 || target < 0 || source >= int(kinds) || target >= int(kinds)) refuse("ends: no such kind of node");
      const int64_t edges = int64_t(neighbours_[k].size()), targets = num_nodes[target];
      const int64_t *ptr = ptrs_[k].data();
      if (int64_t(ptrs_[k].size()) != targets + 1)
        refuse("ptrs: needed one number more than there are nodes, " + std::to_string(targets + 1) + ", found " +
               std::to_string(ptrs_[k].size()));
      if (ptr[0] != 0 || ptr[targets] != edges) refuse("ptrs: needed to rise from 0 to the number of edges");
      for (int64_t n = 0; n < targets; ++n)
        if (ptr[n] > ptr[n + 1]) refuse("ptrs: needed to rise");
      for (int64_t e = 0; e < edges; ++e) {
        const int64_t node = neighbours_[k].data()[e];
        if (node < 0 || node >= num_nodes[source])
          refuse("an edge comes from node " + std::to_string(node) + ", needed 0 to " +
                 std::to_string(num_nodes[source] - 1));
      }
      edges_.push_back({source, target, ptr, neighbours_[k].data(), pointer("weights", weights_[k], edges),
                        pointer("edge_times", edge_times_[k], edges), {}});
    }
  }

  nb::tuple sample(std::vector<std::vector<int64_t>> wanted, std::vector<int> kinds, std::vector<Index> seeds,
                   std::vector<std::optional<Index>> seed_times, bool replace, bool induced, bool disjoint, bool last,
                   uint64_t seed) const {
    std::vector<EdgeKind> edges = edges_;
    if (wanted.size() != edges.size()) refuse("wanted: needed one list for each kind of edge");
    for (std::size_t k = 0; k < edges.size(); ++k) {
      edges[k].wanted = std::move(wanted[k]);
      if (edges[k].wanted.size() != edges[0].wanted.size()) refuse("wanted: needed as many hops for each kind of edge");
    }
    if (seeds.size() != kinds.size() || seed_times.size() != kinds.size())
      refuse("seeds and seed_times: needed one for each of kinds");
    std::vector<Seeds> some;
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      if (kinds[i] < 0 || kinds[i] >= int(nodes_.size())) refuse("kinds: no such kind of node");
      const int64_t count = int64_t(seeds[i].size()), nodes = nodes_[kinds[i]].nodes;
      for (int64_t n = 0; n < count; ++n)
        if (seeds[i].data()[n] < 0 || seeds[i].data()[n] >= nodes)
          refuse("a seed is node " + std::to_string(seeds[i].data()[n]) + ", needed 0 to " + std::to_string(nodes - 1));
      some.push_back({kinds[i], seeds[i].data(), pointer("seed_times", seed_times[i], count), count});
    }
    Sample found;
    {
      nb::gil_scoped_release free;
      found = graphattn::sample(nodes_, edges, some, Wish{replace, induced, disjoint, last, seed});
    }
    nb::list nodes, connections;
    for (FoundNodes &kind : found.nodes)
      nodes.append(nb::make_tuple(array_of(std::move(kind.nodes)), array_of(std::move(kind.seed)), kind.per_hop));
    for (FoundEdges &kind : found.edges)
      connections.append(nb::make_tuple(array_of(std::move(kind.sources)), array_of(std::move(kind.targets)),
                                        array_of(std::move(kind.edges)), kind.per_hop));
    return nb::make_tuple(nodes, connections);
  }

 private:
  std::vector<std::optional<Index>> node_times_, edge_times_;
  std::vector<Index> ptrs_, neighbours_;
  std::vector<std::optional<Reals>> weights_;
  std::vector<NodeKind> nodes_;
  std::vector<EdgeKind> edges_;
};

}  // namespace

void bind_sampling(nb::module_ &module) {
  using namespace nb::literals;
  nb::class_<Neighbourhoods>(module, "Neighbourhoods")
      .def(nb::init<std::vector<int64_t>, std::vector<std::optional<Index>>, std::vector<std::pair<int, int>>,
                    std::vector<Index>, std::vector<Index>, std::vector<std::optional<Reals>>,
                    std::vector<std::optional<Index>>>(),
           "num_nodes"_a, "node_times"_a, "ends"_a, "ptrs"_a, "neighbours"_a, "weights"_a, "edge_times"_a)
      .def("sample", &Neighbourhoods::sample, "wanted"_a, "kinds"_a, "seeds"_a, "seed_times"_a, "replace"_a,
           "induced"_a, "disjoint"_a, "last"_a, "seed"_a);
}

}  // namespace graphattn
