// Rows of a table by index: embeddings of tokens, and the rows whose logits are wanted.
#include "element.cuh"

// One block a row; `width` is a multiple of 8.
template <typename T>
__device__ __forceinline__ void gather(const T* table, const uint32_t* indices, T* out, int width, float scale) {
  const uint4* from = reinterpret_cast<const uint4*>(table + (size_t)indices[blockIdx.x] * width);
  uint4* to = reinterpret_cast<uint4*>(out + (size_t)blockIdx.x * width);
  for (int i = threadIdx.x; i < width >> 3; i += blockDim.x) {
    uint4 raw = __ldg(from + i);
    if (scale != 1.f) {
      Eight x = widen<T>(raw);
#pragma unroll
      for (int j = 0; j < 8; j++) x.v[j] *= scale;
      raw = narrow<T>(x);
    }
    to[i] = raw;
  }
}

#define GATHER(T)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                            \
      gather_##T(const T* table, const uint32_t* indices, T* out, int width, float scale) {                    \
    gather<T>(table, indices, out, width, scale);                                                              \
  }
GATHER(bf16)
GATHER(f16)
