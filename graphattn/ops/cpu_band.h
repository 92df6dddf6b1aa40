// What cpu_kernels.cpp lists of cpu_band.cpp, for one instruction set.
#pragma once

#include "cpu_kernels.h"

namespace graphattn {
namespace GRAPHATTN_ISA {

void band_sum(const Band &band, void *out);
void band_sum_backward(const Band &band, const BandGradients &to);

}  // namespace GRAPHATTN_ISA
}  // namespace graphattn
