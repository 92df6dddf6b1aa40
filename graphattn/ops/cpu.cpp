// The door between Python and the kernels: checks the arrays, picks the instruction set, lets go of the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "../graph.h"
#include "cpu_kernels.h"

namespace nb = nanobind;

namespace graphattn {

void bind_sampling(nb::module_ &module);        // data/sampling_door.cpp
void bind_attention_wise(nb::module_ &module);  // grid/attention_wise_door.cpp

#define DECLARE(isa) namespace isa { extern const Kernels kernels; }
DECLARE(baseline)
#ifdef GRAPHATTN_X86
DECLARE(avx2)
DECLARE(avx512)
#endif

namespace {

using Array = nb::ndarray<nb::device::cpu, nb::c_contig>;
using MaybeArray = std::optional<Array>;
using Index = nb::ndarray<const int64_t, nb::ndim<1>, nb::device::cpu, nb::c_contig>;

// The instruction sets this machine can run, best first.
const std::vector<const Kernels *> &available() {
  static const std::vector<const Kernels *> found = [] {
    std::vector<const Kernels *> list;
#ifdef GRAPHATTN_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (avx512) list.push_back(&avx512::kernels);
    if (avx2) list.push_back(&avx2::kernels);
#endif
    list.push_back(&baseline::kernels);
    return list;
  }();
  return found;
}

const Kernels *chosen = nullptr;  // by name, or by width

// A row shorter than two of AVX-512's registers is mostly remainder there.
constexpr int64_t LONG_ROW = 32;

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels *kernels : available()) names.push_back(kernels->name);
  return names;
}

void use_instruction_set(const std::optional<std::string> &name) {
  if (!name) {
    chosen = nullptr;
    return;
  }
  for (const Kernels *kernels : available())
    if (*name == kernels->name) {
      chosen = kernels;
      return;
    }
  throw nb::value_error(("no instruction set '" + *name + "' on this machine").c_str());
}

[[noreturn]] void refuse(const char *name, const char *why) {
  throw nb::value_error((std::string(name) + " " + why).c_str());
}

Type type_of(const Array &array) {
  if (array.dtype() == nb::dtype<float>()) return Type::f32;
  if (array.dtype() == nb::dtype<double>()) return Type::f64;
  if (array.dtype().bits == 16 && array.dtype().code == uint8_t(nb::dlpack::dtype_code::Bfloat)) return Type::bf16;
  if (array.dtype().bits == 16 && array.dtype().code == uint8_t(nb::dlpack::dtype_code::Float)) return Type::f16;
  throw nb::type_error("values must be float32, float64, bfloat16 or float16");
}

using Shape = std::vector<int64_t>;

void *data(const char *name, const Array &array, nb::dlpack::dtype type, const Shape &shape) {
  if (array.dtype() != type) refuse(name, "has another dtype than the call needs");
  if (array.ndim() != shape.size()) refuse(name, "has another number of dimensions than the call needs");
  size_t k = 0;
  for (int64_t size : shape)
    if (int64_t(array.shape(k++)) != size) refuse(name, "has another shape than the call needs");
  if (!array.data() && array.size()) refuse(name, "has no memory, as a tensor that only stands for one");
  return array.data();
}

void *data(const char *name, const MaybeArray &array, nb::dlpack::dtype type, const Shape &shape) {
  return array ? data(name, *array, type, shape) : nullptr;
}

void *needed(const char *name, const MaybeArray &array, nb::dlpack::dtype type, const Shape &shape) {
  if (!array) refuse(name, "is missing");
  return data(name, *array, type, shape);
}

nb::dlpack::dtype sum_type(Type type) { return type == Type::f64 ? nb::dtype<double>() : nb::dtype<float>(); }

Order order_of(const Index &ptr, const Index &edges, const Index &others) {
  if (ptr.size() == 0) refuse("ptr", "is empty: one number more than nodes is needed");
  if (!ptr.data() || (edges.size() && !(edges.data() && others.data())))
    refuse("ptr", "has no memory, as a tensor that only stands for one");
  Order order{ptr.data(), edges.data(), others.data(), int64_t(ptr.size()) - 1};
  if (edges.size() != others.size() || int64_t(edges.size()) != order.ptr[order.nodes])
    refuse("ptr", "does not end with the number of edges");
  return order;
}

Dropout dropout_of(double p, uint64_t seed) {
  if (!(p >= 0 && p <= 1)) refuse("p", "is no probability from 0 to 1");
  Dropout dropout;
  dropout.on = p > 0;
  dropout.low = uint32_t(seed), dropout.high = uint32_t(seed >> 32);
  dropout.threshold = p == 1 ? 0 : uint32_t(p * 4294967296.0);
  dropout.scale = p == 1 ? 0.0 : 1 / (1 - p);
  return dropout;
}

struct Sizes {
  int64_t senders, receivers, edges, heads, width;
};

Attention attention_of(int score, const Array &values, const MaybeArray &left, const MaybeArray &right,
                       const MaybeArray &att, const MaybeArray &edge, Sizes n, double constant, double p, uint64_t seed,
                       int threads) {
  Attention a;
  if (score < 0 || score > int(Score::dot_product)) refuse("score", "is none of the four");
  if (n.heads < 1) refuse("heads", "is below one");
  a.score = Score(score), a.type = type_of(values), a.heads = n.heads, a.width = n.width;
  a.shared_values = int64_t(values.shape(1)) != n.heads;
  a.constant = constant, a.dropout = dropout_of(p, seed), a.threads = threads < 1 ? 1 : threads;
  const auto type = values.dtype();
  const int64_t value_heads = a.shared_values ? 1 : n.heads;
  const bool wide = a.score == Score::additive_v2 || a.score == Score::dot_product;
  a.values = data("values", values, type, {n.senders, value_heads, n.width});
  if (a.score == Score::additive) {
    a.left = needed("left", left, type, {n.senders, n.heads});
    a.right = needed("right", right, type, {n.receivers, n.heads});
  }
  if (a.score == Score::dot_product) a.left = needed("left", left, type, {n.senders, value_heads, n.width});
  if (a.score == Score::additive_v2) a.att = needed("att", att, type, {n.heads, n.width});
  if (a.score == Score::additive_v2 && a.shared_values && n.heads != 1) refuse("values", "must have a row for each head");
  if (wide) a.right = needed("right", right, type, {n.receivers, n.heads, n.width});
  a.edge = wide ? data("edge", edge, type, {n.edges, n.heads, n.width}) : data("edge", edge, type, {n.edges, n.heads});
  if (a.score == Score::given && !edge) refuse("edge", "is missing: it holds the logits");
  return a;
}

void forward(int score, Array values, MaybeArray left, MaybeArray right, MaybeArray att, MaybeArray edge, int64_t heads,
             Index ptr, Index edges, Index others, double constant, double p, uint64_t seed, int threads, Array out,
             Array lse, MaybeArray weights) {
  if (values.ndim() != 3) refuse("values", "has another number of dimensions than three");
  const Order order = order_of(ptr, edges, others);
  const Sizes n{int64_t(values.shape(0)), order.nodes, int64_t(edges.size()), heads, int64_t(values.shape(2))};
  Attention a = attention_of(score, values, left, right, att, edge, n, constant, p, seed, threads);
  a.by_receiver = order;
  const auto sums = sum_type(a.type);
  Forward to{data("out", out, values.dtype(), {n.receivers, n.heads, n.width}),
             data("lse", lse, nb::dtype<double>(), {n.receivers, n.heads}), data("weights", weights, sums, {n.edges, n.heads})};
  nb::gil_scoped_release free;
  kernels_for(a.width)->forward(a, to);
}

void backward(int score, Array values, MaybeArray left, MaybeArray right, MaybeArray att, MaybeArray edge,
              int64_t heads, Index ptr, Index edges, Index others, Index sender_ptr, Index sender_edges,
              Index sender_others, double constant, double p, uint64_t seed, int threads, Array out, Array lse,
              Array grad_out, MaybeArray weights, MaybeArray grad_weights, MaybeArray grad_values, MaybeArray grad_left,
              MaybeArray grad_right, MaybeArray grad_att, MaybeArray grad_edge, Array row_sums, MaybeArray logit_grads) {
  if (values.ndim() != 3) refuse("values", "has another number of dimensions than three");
  const Order order = order_of(ptr, edges, others);
  const Sizes n{int64_t(values.shape(0)), order.nodes, int64_t(edges.size()), heads, int64_t(values.shape(2))};
  Attention a = attention_of(score, values, left, right, att, edge, n, constant, p, seed, threads);
  a.by_receiver = order;
  a.by_sender = order_of(sender_ptr, sender_edges, sender_others);
  if (a.by_sender.nodes != n.senders || int64_t(sender_edges.size()) != n.edges)
    refuse("sender_ptr", "belongs to another graph than ptr");
  const auto type = values.dtype(), sums = sum_type(a.type);
  const int64_t value_heads = a.shared_values ? 1 : n.heads;
  const bool wide = a.score == Score::additive_v2 || a.score == Score::dot_product;
  Backward b;
  b.out = data("out", out, type, {n.receivers, n.heads, n.width});
  b.lse = data("lse", lse, nb::dtype<double>(), {n.receivers, n.heads});
  b.grad_out = data("grad_out", grad_out, type, {n.receivers, n.heads, n.width});
  b.weights = data("weights", weights, sums, {n.edges, n.heads});
  b.grad_weights = data("grad_weights", grad_weights, sums, {n.edges, n.heads});
  b.grad_values = data("grad_values", grad_values, type, {n.senders, value_heads, n.width});
  b.grad_left = wide ? data("grad_left", grad_left, type, {n.senders, value_heads, n.width})
                     : data("grad_left", grad_left, type, {n.senders, n.heads});
  b.grad_right = wide ? data("grad_right", grad_right, type, {n.receivers, n.heads, n.width})
                      : data("grad_right", grad_right, type, {n.receivers, n.heads});
  b.grad_att = data("grad_att", grad_att, type, {n.heads, n.width});
  b.grad_edge = wide ? data("grad_edge", grad_edge, type, {n.edges, n.heads, n.width})
                     : data("grad_edge", grad_edge, type, {n.edges, n.heads});
  b.row_sums = data("row_sums", row_sums, sums, {n.receivers, n.heads});
  b.logit_grads = data("logit_grads", logit_grads, sums, {n.edges, n.heads});
  if (grad_weights && !weights) refuse("weights", "are missing beside grad_weights");
  if (grad_right && !logit_grads) refuse("logit_grads", "is missing beside grad_right");
  nb::gil_scoped_release free;
  kernels_for(a.width)->backward(a, b);
}

void weighted_sum(Array weights, Array rows, Index ptr, Index edges, Index others, double p, uint64_t seed, int threads,
                  Array out) {
  WeightedSum sum;
  sum.order = order_of(ptr, edges, others);
  if (rows.ndim() != 2 && rows.ndim() != 3) refuse("rows", "has another number of dimensions than two or three");
  sum.type = type_of(rows), sum.heads = rows.ndim() == 3 ? int64_t(rows.shape(1)) : 1;
  sum.width = int64_t(rows.shape(rows.ndim() - 1));
  const auto shape_of = [&](int64_t nodes) {
    return rows.ndim() == 3 ? std::vector<int64_t>{nodes, sum.heads, sum.width} : std::vector<int64_t>{nodes, sum.width};
  };
  sum.weights = data("weights", weights, rows.dtype(), {int64_t(edges.size())});
  sum.rows = data("rows", rows, rows.dtype(), shape_of(int64_t(rows.shape(0))));
  sum.out = data("out", out, rows.dtype(), shape_of(sum.order.nodes));
  sum.dropout = dropout_of(p, seed), sum.threads = threads < 1 ? 1 : threads;
  nb::gil_scoped_release free;
  kernels_for(sum.heads * sum.width)->weighted_sum(sum);
}

void drop(Array from, double p, uint64_t seed, int threads, Array to) {
  Drop drop;
  drop.type = type_of(from), drop.size = int64_t(from.size()), drop.from = from.data();
  if (to.dtype() != from.dtype() || to.size() != from.size()) refuse("to", "has another dtype or size than from");
  if (from.size() && !(from.data() && to.data())) refuse("from", "has no memory, as a tensor that only stands for one");
  drop.to = to.data(), drop.dropout = dropout_of(p, seed), drop.threads = threads < 1 ? 1 : threads;
  nb::gil_scoped_release free;
  kernels_for(LONG_ROW)->drop(drop);
}

Band band_of(const Array &weights, const Array &values, int64_t left, int threads) {
  if (values.ndim() != 4) refuse("values", "has another number of dimensions than four");
  if (weights.ndim() != 2 && weights.ndim() != 4) refuse("weights", "has another number of dimensions than two or four");
  Band band;
  band.type = type_of(values), band.shared_weights = weights.ndim() == 2, band.left = left;
  band.batch = int64_t(values.shape(0)), band.steps = int64_t(values.shape(1)), band.heads = int64_t(values.shape(2));
  band.width = int64_t(values.shape(3)), band.taps = int64_t(weights.shape(weights.ndim() - 1));
  if (left < 0 || left >= band.taps) refuse("left", "is no tap");
  const Shape shape = band.shared_weights ? Shape{band.heads, band.taps} : Shape{band.batch, band.steps, band.heads, band.taps};
  band.weights = data("weights", weights, values.dtype(), shape);
  band.values = data("values", values, values.dtype(), {band.batch, band.steps, band.heads, band.width});
  band.threads = threads < 1 ? 1 : threads;
  return band;
}

void band_sum(Array weights, Array values, int64_t left, int threads, Array out) {
  const Band band = band_of(weights, values, left, threads);
  void *to = data("out", out, values.dtype(), {band.batch, band.steps, band.heads, band.width});
  nb::gil_scoped_release free;
  kernels_for(band.width)->band_sum(band, to);
}

void band_sum_backward(Array weights, Array values, int64_t left, Array grad_out, int threads, MaybeArray grad_weights,
                       MaybeArray grad_values) {
  const Band band = band_of(weights, values, left, threads);
  const auto type = values.dtype();
  const Shape shape{band.batch, band.steps, band.heads, band.width};
  BandGradients to;
  to.grad_out = data("grad_out", grad_out, type, shape);
  to.grad_values = data("grad_values", grad_values, type, shape);
  to.grad_weights = data("grad_weights", grad_weights, type, band.shared_weights ? Shape{band.heads, band.taps}
                                                           : Shape{band.batch, band.steps, band.heads, band.taps});
  nb::gil_scoped_release free;
  kernels_for(band.width)->band_sum_backward(band, to);
}

using IndexOut = nb::ndarray<int64_t, nb::ndim<1>, nb::device::cpu, nb::c_contig>;

void group(Index ends, Index others, int64_t other_nodes, int threads, IndexOut ptr, IndexOut edges, IndexOut grouped_others) {
  if (ptr.size() == 0) refuse("ptr", "is empty: one number more than nodes is needed");
  if (others.size() != ends.size() || edges.size() != ends.size() || grouped_others.size() != ends.size())
    refuse("others", "and edges must be as long as ends");
  if (!ptr.data() || (ends.size() && !(ends.data() && others.data())))
    refuse("ends", "has no memory, as a tensor that only stands for one");
  nb::gil_scoped_release free;
  if (!group_edges(ends.data(), others.data(), int64_t(ends.size()), int64_t(ptr.size()) - 1, other_nodes, threads, ptr.data(),
                   edges.data(), grouped_others.data())) {
    nb::gil_scoped_acquire hold;
    throw nb::index_error("an edge has an end that is no node: an index is below 0 or not below the number of nodes");
  }
}

}  // namespace

NB_MODULE(_cpu, module) {
  using namespace nb::literals;
  module.def("instruction_sets", instruction_sets);
  module.def("use_instruction_set", use_instruction_set, "name"_a.none());
  module.def("forward", forward, "score"_a, "values"_a.noconvert(), "left"_a.noconvert().none(), "right"_a.noconvert().none(), "att"_a.noconvert().none(),
             "edge"_a.noconvert().none(), "heads"_a, "ptr"_a.noconvert(), "edges"_a.noconvert(), "others"_a.noconvert(), "constant"_a, "p"_a, "seed"_a, "threads"_a,
             "out"_a.noconvert(), "lse"_a.noconvert(), "weights"_a.noconvert().none());
  module.def("backward", backward, "score"_a, "values"_a.noconvert(), "left"_a.noconvert().none(), "right"_a.noconvert().none(), "att"_a.noconvert().none(),
             "edge"_a.noconvert().none(), "heads"_a, "ptr"_a.noconvert(), "edges"_a.noconvert(), "others"_a.noconvert(), "sender_ptr"_a.noconvert(), "sender_edges"_a.noconvert(),
             "sender_others"_a.noconvert(), "constant"_a, "p"_a, "seed"_a, "threads"_a, "out"_a.noconvert(), "lse"_a.noconvert(), "grad_out"_a.noconvert(),
             "weights"_a.noconvert().none(), "grad_weights"_a.noconvert().none(), "grad_values"_a.noconvert().none(), "grad_left"_a.noconvert().none(),
             "grad_right"_a.noconvert().none(), "grad_att"_a.noconvert().none(), "grad_edge"_a.noconvert().none(), "row_sums"_a.noconvert(), "logit_grads"_a.noconvert().none());
  module.def("weighted_sum", weighted_sum, "weights"_a.noconvert(), "rows"_a.noconvert(), "ptr"_a.noconvert(), "edges"_a.noconvert(), "others"_a.noconvert(), "p"_a, "seed"_a,
             "threads"_a, "out"_a.noconvert());
  module.def("drop", drop, "from_"_a.noconvert(), "p"_a, "seed"_a, "threads"_a, "to"_a.noconvert());
  module.def("band_sum", band_sum, "weights"_a.noconvert(), "values"_a.noconvert(), "left"_a, "threads"_a, "out"_a.noconvert());
  module.def("band_sum_backward", band_sum_backward, "weights"_a.noconvert(), "values"_a.noconvert(), "left"_a, "grad_out"_a.noconvert(), "threads"_a,
             "grad_weights"_a.noconvert().none(), "grad_values"_a.noconvert().none());
  module.def("group", group, "ends"_a.noconvert(), "others"_a.noconvert(), "other_nodes"_a, "threads"_a, "ptr"_a.noconvert(), "edges"_a.noconvert(), "grouped_others"_a.noconvert());
  nb::set_leak_warnings(false);  // a process that ends at once, as workers do, need not tidy up
  bind_sampling(module);
  bind_attention_wise(module);
}

const Kernels *kernels_for(int64_t width) {
  if (chosen) return chosen;
  const auto &list = available();
  return width < LONG_ROW && list.size() > 2 ? list[1] : list[0];
}

}  // namespace graphattn
