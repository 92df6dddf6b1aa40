// The door between Python and the kernels of an Attention-Wise layer: checks the arrays, lets go of the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <string>
#include <vector>

#include "../ops/cpu_kernels.h"

namespace nb = nanobind;

namespace graphattn {
namespace {

using Array = nb::ndarray<nb::device::cpu, nb::c_contig>;
using MaybeArray = std::optional<Array>;
using Shape = std::vector<int64_t>;

void *data(const char *name, const Array &array, nb::dlpack::dtype type, const Shape &shape) {
  Shape found;
  for (size_t k = 0; k < array.ndim(); ++k) found.push_back(int64_t(array.shape(k)));
  if (found != shape) throw nb::value_error((std::string(name) + " has another shape than the call needs").c_str());
  if (array.dtype() != type) throw nb::type_error((std::string(name) + " has another dtype than the call needs").c_str());
  if (!array.data() && array.size())
    throw nb::value_error((std::string(name) + " has no memory, as a tensor that only stands for one").c_str());
  return array.data();
}

void *data(const char *name, const MaybeArray &array, nb::dlpack::dtype type, const Shape &shape) {
  return array ? data(name, *array, type, shape) : nullptr;
}

struct Shapes {
  Shape x, free, conv;
};

AttentionWise call_of(const Array &x, const Array &wx, const Array &wy, const MaybeArray &bx, const MaybeArray &by,
                      const Array &conv, const Array &mean, const Array &var, double eps, bool training, int threads,
                      Shapes &shapes) {
  if (x.ndim() != 4 || wx.ndim() != 4) throw nb::value_error("x and wx need four dimensions");
  if (x.dtype() != nb::dtype<float>() && x.dtype() != nb::dtype<double>())
    throw nb::type_error("x must be float32 or float64");
  if (bx.has_value() != by.has_value()) throw nb::value_error("bx and by go together");
  AttentionWise call;
  const auto type = x.dtype();
  call.wide = type == nb::dtype<double>();
  call.training = training, call.eps = eps, call.threads = threads < 1 ? 1 : threads;
  call.images = int64_t(x.shape(0)), call.channels = int64_t(x.shape(1));
  call.height = int64_t(x.shape(2)), call.width = int64_t(x.shape(3)), call.heads = int64_t(wx.shape(0));
  if (call.heads < 1 || call.channels < 1 || call.height < 1 || call.width < 1)
    throw nb::value_error("wx is empty: heads, channels, height and width must be at least one");
  shapes.x = {call.images, call.channels, call.height, call.width};
  shapes.free = {call.heads, call.channels, call.height, call.width};
  shapes.conv = {call.channels, call.maps(), 3, 3};
  call.x = data("x", x, type, shapes.x);
  call.wx = data("wx", wx, type, shapes.free), call.wy = data("wy", wy, type, shapes.free);
  call.bx = data("bx", bx, type, shapes.free), call.by = data("by", by, type, shapes.free);
  call.conv = data("conv", conv, type, shapes.conv);
  call.mean = static_cast<double *>(data("mean", mean, nb::dtype<double>(), {call.maps()}));
  call.var = static_cast<double *>(data("var", var, nb::dtype<double>(), {call.maps()}));
  return call;
}

void forward(Array x, Array wx, Array wy, MaybeArray bx, MaybeArray by, Array conv, Array mean, Array var, double eps,
             bool training, int threads, Array merged) {
  Shapes shapes;
  const AttentionWise call = call_of(x, wx, wy, bx, by, conv, mean, var, eps, training, threads, shapes);
  const AttentionWiseForward to{data("merged", merged, x.dtype(), shapes.x)};
  nb::gil_scoped_release free;
  kernels_for(call.width)->attention_wise_forward(call, to);
}

void backward(Array x, Array wx, Array wy, MaybeArray bx, MaybeArray by, Array conv, Array mean, Array var, double eps,
              bool training, int threads, Array grad, Array grad_x, Array grad_wx, Array grad_wy, MaybeArray grad_bx,
              MaybeArray grad_by, Array grad_conv) {
  Shapes shapes;
  const AttentionWise call = call_of(x, wx, wy, bx, by, conv, mean, var, eps, training, threads, shapes);
  if (bx && !(grad_bx && grad_by)) throw nb::value_error("grad_bx and grad_by are missing beside bx");
  const auto type = x.dtype();
  AttentionWiseBackward to;
  to.grad = data("grad", grad, type, shapes.x), to.grad_x = data("grad_x", grad_x, type, shapes.x);
  to.grad_wx = data("grad_wx", grad_wx, type, shapes.free), to.grad_wy = data("grad_wy", grad_wy, type, shapes.free);
  to.grad_bx = data("grad_bx", grad_bx, type, shapes.free), to.grad_by = data("grad_by", grad_by, type, shapes.free);
  to.grad_conv = data("grad_conv", grad_conv, type, shapes.conv);
  nb::gil_scoped_release free;
  kernels_for(call.width)->attention_wise_backward(call, to);
}

}  // namespace

void bind_attention_wise(nb::module_ &module) {
  using namespace nb::literals;
  module.def("attention_wise_forward", forward, "x"_a.noconvert(), "wx"_a.noconvert(), "wy"_a.noconvert(),
             "bx"_a.noconvert().none(), "by"_a.noconvert().none(), "conv"_a.noconvert(), "mean"_a.noconvert(),
             "var"_a.noconvert(), "eps"_a, "training"_a, "threads"_a, "merged"_a.noconvert());
  module.def("attention_wise_backward", backward, "x"_a.noconvert(), "wx"_a.noconvert(), "wy"_a.noconvert(),
             "bx"_a.noconvert().none(), "by"_a.noconvert().none(), "conv"_a.noconvert(), "mean"_a.noconvert(),
             "var"_a.noconvert(), "eps"_a, "training"_a, "threads"_a, "grad"_a.noconvert(), "grad_x"_a.noconvert(),
             "grad_wx"_a.noconvert(), "grad_wy"_a.noconvert(), "grad_bx"_a.noconvert().none(),
             "grad_by"_a.noconvert().none(), "grad_conv"_a.noconvert());
}

}  // namespace graphattn
