// The gate of a feed-forward block.
#include "element.cuh"

// gate_up [rows, gate|up] -> out [rows, n] = act(gate) * up. A thread takes eight columns of some rows.
template <typename T, bool GELU>
__device__ __forceinline__ void gated(const T* gate_up, T* out, int rows, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n >> 3) return;
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    const uint4* from = reinterpret_cast<const uint4*>(gate_up + (size_t)row * 2 * n);
    Eight g = widen<T>(from[i]);
    const Eight u = widen<T>(from[(n >> 3) + i]);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float x = g.v[j];
      // (1 + tanh(z))/2 = 1/(1 + e^-2z), with z = sqrt(2/pi) (x + 0.044715 x^3)
      const float slope = GELU ? x * (1.5957692f + 0.071354814f * x * x) : x;
      g.v[j] = __fdividef(x, 1.f + __expf(-slope)) * u.v[j];
      // a divisor beyond 2^126 would give 0/0 or NaN in the fast division
      if (slope < -80.f) g.v[j] = 0.f;
    }
    reinterpret_cast<uint4*>(out + (size_t)row * n)[i] = narrow<T>(g);
  }
}

#define GATED(T)                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) silu_mul_##T(const T* gate_up, T* out, int rows, int n) { \
    gated<T, false>(gate_up, out, rows, n);                                                             \
  }                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256) gelu_mul_##T(const T* gate_up, T* out, int rows, int n) { \
    gated<T, true>(gate_up, out, rows, n);                                                              \
  }
GATED(bf16)
GATED(f16)
