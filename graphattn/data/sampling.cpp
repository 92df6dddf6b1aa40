#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

namespace graphattn {
namespace {

// SplitMix64 (Steele, Lea and Flood 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }

  // Each of 0 .. n - 1 equally likely: what would favour the low ones is drawn again.
  int64_t below(int64_t n) {
    const uint64_t size = uint64_t(n);
    while (true) {
      const uint64_t x = next(), rest = x % size;
      if (x - rest <= std::numeric_limits<uint64_t>::max() - (size - 1)) return int64_t(rest);
    }
  }

  // Above 0, up to 1.
  double unit() { return double((next() >> 11) + 1) * 0x1p-53; }

 private:
  uint64_t state_;
};

// From a node (and seed) to its position; open addressing.
class Positions {
 public:
  Positions() : keys_(64, EMPTY), values_(64) {}

  // The position of `key`; `fresh` if it was not there.
  int64_t find_or_add(uint64_t key, int64_t fresh) {
    if (2 * (size_ + 1) > keys_.size()) grow();
    const std::size_t at = place(key);
    if (keys_[at] == EMPTY) {
      keys_[at] = key, values_[at] = fresh;
      ++size_;
    }
    return values_[at];
  }

  // -1 if it is not there.
  int64_t find(uint64_t key) const {
    const std::size_t at = place(key);
    return keys_[at] == EMPTY ? -1 : values_[at];
  }

 private:
  static constexpr uint64_t EMPTY = std::numeric_limits<uint64_t>::max();

  std::size_t place(uint64_t key) const {
    const std::size_t mask = keys_.size() - 1;
    std::size_t at = std::size_t((key * 0x9e3779b97f4a7c15u) >> 20) & mask;
    while (keys_[at] != EMPTY && keys_[at] != key) at = (at + 1) & mask;
    return at;
  }

  void grow() {
    std::vector<uint64_t> keys(2 * keys_.size(), EMPTY);
    std::vector<int64_t> values(2 * values_.size());
    keys.swap(keys_), values.swap(values_);
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (keys[i] != EMPTY) {
        const std::size_t at = place(keys[i]);
        keys_[at] = keys[i], values_[at] = values[i];
      }
  }

  std::vector<uint64_t> keys_;
  std::vector<int64_t> values_;
  std::size_t size_ = 0;
};

using Draws = std::vector<int64_t>;

// `wanted` different numbers of 0 .. size - 1, every set equally likely: by Floyd's algorithm (Bentley and Floyd 1987)
// where they are few or `size` is far larger, else by shuffling.
void draw_set(int64_t size, int64_t wanted, Random &random, Draws &drawn) {
  if (wanted <= 32) {  // few enough to look through
    for (int64_t last = size - wanted; last < size; ++last) {
      const int64_t x = random.below(last + 1);
      const bool there = std::find(drawn.begin(), drawn.end(), x) != drawn.end();
      drawn.push_back(there ? last : x);
    }
    return;
  }
  if (size / 32 <= wanted) {
    Draws all(static_cast<std::size_t>(size));
    for (int64_t i = 0; i < size; ++i) all[i] = i;
    for (int64_t i = 0; i < wanted; ++i) std::swap(all[i], all[i + random.below(size - i)]);
    drawn.assign(all.begin(), all.begin() + wanted);
    return;
  }
  Positions taken;  // each with the round it was taken in
  for (int64_t last = size - wanted; last < size; ++last) {
    const int64_t x = random.below(last + 1);
    const bool there = taken.find_or_add(uint64_t(x), last) != last;
    if (there) taken.find_or_add(uint64_t(last), last);
    drawn.push_back(there ? last : x);
  }
}

// As drawing one after the other, each in proportion to its weight among those left (Efraimidis and Spirakis 2006):
// the `wanted` smallest of exponential variables with the weights as rates. What weighs nothing is never drawn.
void draw_weighted_set(const double *weights, int64_t size, int64_t wanted, Random &random, Draws &drawn) {
  std::vector<std::pair<double, int64_t>> keys;
  keys.reserve(static_cast<std::size_t>(size));
  for (int64_t i = 0; i < size; ++i)
    if (weights[i] > 0) keys.emplace_back(-std::log(random.unit()) / weights[i], i);
  const auto end = keys.begin() + std::min<int64_t>(wanted, int64_t(keys.size()));
  std::partial_sort(keys.begin(), end, keys.end());
  for (auto key = keys.begin(); key != end; ++key) drawn.push_back(key->second);
}

void draw_weighted(const double *weights, int64_t size, int64_t wanted, Random &random, Draws &drawn) {
  std::vector<double> sums(static_cast<std::size_t>(size));
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sums[i] = sum += weights[i];
  if (!(sum > 0)) return;
  for (int64_t k = 0; k < wanted; ++k)  // unit() may be 1: the first that reaches the sum then
    drawn.push_back(std::lower_bound(sums.begin(), sums.end(), random.unit() * sum) - sums.begin());
}

// Which of a node's `size` edges are taken; `drawn` is empty at first.
void draw(const double *weights, int64_t size, int64_t wanted, const Wish &wish, bool latest, Random &random,
          Draws &drawn) {
  if (size == 0) return;
  if (wanted < 0 || (!wish.replace && wanted >= size)) {
    for (int64_t i = 0; i < size; ++i) drawn.push_back(i);
  } else if (latest) {
    for (int64_t i = std::max<int64_t>(0, size - wanted); i < size; ++i) drawn.push_back(i);
  } else if (weights) {
    (wish.replace ? draw_weighted : draw_weighted_set)(weights, size, wanted, random, drawn);
  } else if (wish.replace) {
    for (int64_t k = 0; k < wanted; ++k) drawn.push_back(random.below(size));
  } else {
    draw_set(size, wanted, random, drawn);
  }
}

class Sampler {
 public:
  Sampler(const std::vector<NodeKind> &nodes, const std::vector<EdgeKind> &edges, const Wish &wish)
      : nodes_(nodes), edges_(edges), wish_(wish), random_(wish.seed), positions_(nodes.size()) {
    found_.nodes.resize(nodes.size());
    found_.edges.resize(edges.size());
  }

  Sample run(const std::vector<Seeds> &seeds) {
    for (const Seeds &some : seeds) add(some);
    std::vector<int64_t> begin(nodes_.size(), 0);  // of the nodes whose neighbours are drawn next
    for (FoundNodes &found : found_.nodes) found.per_hop.push_back(int64_t(found.nodes.size()));
    const std::size_t hops = edges_.empty() ? 0 : edges_[0].wanted.size();
    for (std::size_t hop = 0; hop < hops; ++hop) {
      std::vector<int64_t> end;
      for (const FoundNodes &found : found_.nodes) end.push_back(int64_t(found.nodes.size()));
      for (std::size_t k = 0; k < edges_.size(); ++k) {
        const int64_t before = int64_t(found_.edges[k].edges.size());
        for (int64_t at = begin[edges_[k].target]; at < end[edges_[k].target]; ++at) extend(k, at, edges_[k].wanted[hop]);
        found_.edges[k].per_hop.push_back(int64_t(found_.edges[k].edges.size()) - before);
      }
      for (std::size_t kind = 0; kind < nodes_.size(); ++kind)
        found_.nodes[kind].per_hop.push_back(int64_t(found_.nodes[kind].nodes.size()) - end[kind]);
      begin = end;
    }
    if (wish_.induced) induce();
    return std::move(found_);
  }

 private:
  void add(const Seeds &seeds) {
    FoundNodes &found = found_.nodes[seeds.kind];
    for (int64_t i = 0; i < seeds.count; ++i) {
      const int64_t node = seeds.nodes[i], seed = int64_t(times_.size());
      const int64_t *own = nodes_[seeds.kind].times;
      times_.push_back(seeds.times ? seeds.times[i] : own ? own[node] : std::numeric_limits<int64_t>::max());
      positions_[seeds.kind].find_or_add(key(seeds.kind, node, seed), int64_t(found.nodes.size()));
      found.nodes.push_back(node);  // a seed given twice is there twice
      found.seed.push_back(seed);
    }
  }

  uint64_t key(int kind, int64_t node, int64_t seed) const {
    return uint64_t(wish_.disjoint ? seed * nodes_[kind].nodes + node : node);
  }

  // The edges entering a node that are no later than its seed; they are in order of time.
  int64_t early(const EdgeKind &kind, int64_t first, int64_t last, int64_t seed) const {
    const int64_t *of_nodes = nodes_[kind.source].times;
    if (!kind.times && !of_nodes) return last;
    while (first < last) {
      const int64_t middle = first + (last - first) / 2;
      const int64_t time = kind.times ? kind.times[middle] : of_nodes[kind.neighbours[middle]];
      if (time <= times_[seed])
        first = middle + 1;
      else
        last = middle;
    }
    return first;
  }

  void extend(std::size_t k, int64_t at, int64_t wanted) {
    const EdgeKind &kind = edges_[k];
    const int64_t node = found_.nodes[kind.target].nodes[at], seed = found_.nodes[kind.target].seed[at];
    const int64_t first = kind.ptr[node], end = early(kind, first, kind.ptr[node + 1], seed);
    const bool timed = kind.times || nodes_[kind.source].times;
    drawn_.clear();
    draw(kind.weights ? kind.weights + first : nullptr, end - first, wanted, wish_, timed && wish_.last, random_, drawn_);
    FoundNodes &sources = found_.nodes[kind.source];
    FoundEdges &edges = found_.edges[k];
    for (const int64_t i : drawn_) {
      const int64_t sender = kind.neighbours[first + i], fresh = int64_t(sources.nodes.size());
      const int64_t position = positions_[kind.source].find_or_add(key(kind.source, sender, seed), fresh);
      if (position == fresh) {
        sources.nodes.push_back(sender);
        sources.seed.push_back(seed);
      }
      edges.sources.push_back(position);
      edges.targets.push_back(at);
      edges.edges.push_back(first + i);
    }
  }

  void induce() {
    for (std::size_t k = 0; k < edges_.size(); ++k) {
      const EdgeKind &kind = edges_[k];
      const FoundNodes &targets = found_.nodes[kind.target];
      found_.edges[k] = FoundEdges();
      for (int64_t at = 0; at < int64_t(targets.nodes.size()); ++at) {
        const int64_t node = targets.nodes[at];
        for (int64_t e = kind.ptr[node]; e < kind.ptr[node + 1]; ++e) {
          const int64_t position = positions_[kind.source].find(key(kind.source, kind.neighbours[e], targets.seed[at]));
          if (position < 0) continue;
          found_.edges[k].sources.push_back(position);
          found_.edges[k].targets.push_back(at);
          found_.edges[k].edges.push_back(e);
        }
      }
    }
  }

  const std::vector<NodeKind> &nodes_;
  const std::vector<EdgeKind> &edges_;
  const Wish &wish_;
  Random random_;
  std::vector<Positions> positions_;  // by kind of node
  std::vector<int64_t> times_;        // by seed
  Draws drawn_;
  Sample found_;
};

}  // namespace

Sample sample(const std::vector<NodeKind> &nodes, const std::vector<EdgeKind> &edges, const std::vector<Seeds> &seeds,
              const Wish &wish) {
  return Sampler(nodes, edges, wish).run(seeds);
}

}  // namespace graphattn
