// The gate of a feed-forward block.
#include "activation.cuh"

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
    for (int j = 0; j < 8; j++) g.v[j] = activate<GELU>(g.v[j]) * u.v[j];
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
