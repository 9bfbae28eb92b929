// RMS norm, with what joins the residual stream before it.
#include "element.cuh"

constexpr int THREADS = 256;
// rows of up to 8 * THREADS * CHUNKS values
constexpr int CHUNKS = 8;

// One block a row. With `x`: h += x, or h += norm(x) * post where there is `post`. With `out`:
// out[row] = norm(h[rows ? rows[row] : row]) * weight; h is rounded before it is normed.
template <typename T>
__device__ __forceinline__ void norm(const T* x, const float* post, T* h, const float* weight, const uint32_t* rows,
                                     T* out, int hidden, float eps) {
  __shared__ float part[2][32];
  const size_t from = (size_t)(rows ? rows[blockIdx.x] : blockIdx.x) * hidden;
  const int n = hidden >> 3;
  uint4* hv = reinterpret_cast<uint4*>(h + from);
  uint4 keep[CHUNKS];
  if (x) {
    const uint4* xv = reinterpret_cast<const uint4*>(x + from);
    float scale = 1.f;
    if (post) {
      float squares = 0.f;
#pragma unroll
      for (int k = 0; k < CHUNKS; k++) {
        const int i = threadIdx.x + k * THREADS;
        if (i < n) {
          keep[k] = xv[i];
          const Eight a = widen<T>(keep[k]);
#pragma unroll
          for (int j = 0; j < 8; j++) squares += a.v[j] * a.v[j];
        }
      }
      scale = rsqrtf(block_sum(squares, part[0]) / hidden + eps);
    }
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
      const int i = threadIdx.x + k * THREADS;
      if (i < n) {
        Eight a = widen<T>(post ? keep[k] : xv[i]);
        const Eight b = widen<T>(hv[i]);
        if (post) {
          const Eight w = load_f32(post + 8 * i);
#pragma unroll
          for (int j = 0; j < 8; j++) a.v[j] *= scale * w.v[j];
        }
#pragma unroll
        for (int j = 0; j < 8; j++) a.v[j] += b.v[j];
        keep[k] = narrow<T>(a);
        hv[i] = keep[k];
      }
    }
  } else {
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
      const int i = threadIdx.x + k * THREADS;
      if (i < n) keep[k] = hv[i];
    }
  }
  if (!out) return;
  float squares = 0.f;
#pragma unroll
  for (int k = 0; k < CHUNKS; k++) {
    if (threadIdx.x + k * THREADS < n) {
      const Eight a = widen<T>(keep[k]);
#pragma unroll
      for (int j = 0; j < 8; j++) squares += a.v[j] * a.v[j];
    }
  }
  const float scale = rsqrtf(block_sum(squares, part[1]) / hidden + eps);
  uint4* ov = reinterpret_cast<uint4*>(out + (size_t)blockIdx.x * hidden);
#pragma unroll
  for (int k = 0; k < CHUNKS; k++) {
    const int i = threadIdx.x + k * THREADS;
    if (i < n) {
      Eight a = widen<T>(keep[k]);
      const Eight w = load_f32(weight + 8 * i);
#pragma unroll
      for (int j = 0; j < 8; j++) a.v[j] *= scale * w.v[j];
      ov[i] = narrow<T>(a);
    }
  }
}

#define NORM(T)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
      norm_##T(const T* x, const float* post, T* h, const float* weight, const uint32_t* rows, T* out, int hidden,  \
               float eps) {                                                                                         \
    norm<T>(x, post, h, weight, rows, out, hidden, eps);                                                            \
  }
NORM(bf16)
NORM(f16)
