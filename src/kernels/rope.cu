// Biases, head norms and rotary positions of q and k, and new keys and values into the pool.
//
// Value `i` of a head turns with value `i + D/2`. The pool of a layer is
// [block][kv_head]{ K: [block_tokens][D], V: [block_tokens][D] }.
#include "element.cuh"

constexpr int THREADS = 256;

struct RopeArgs {
  const float* bias;           // [q|k|v] or null
  const float* q_norm;         // [D] or null
  const float* k_norm;         // [D] or null
  const uint32_t* positions;   // [rows]
  const uint32_t* slots;       // [rows] block * block_tokens + place, or NONE: written nowhere
  const float* cos;            // [positions, D/2]
  const float* sin;
  int n_heads, n_kv_heads, block_tokens;
  float eps;
};

template <typename T, int D>
__device__ __forceinline__ void rope(T* qkv, T* pool, const RopeArgs& a) {
  constexpr int HALF = D / 2, CHUNKS = HALF / 8;
  // lanes of a head, a power of two so that they can add up among themselves
  constexpr int SEGMENT = CHUNKS <= 1 ? 1 : CHUNKS <= 2 ? 2 : CHUNKS <= 4 ? 4 : CHUNKS <= 8 ? 8 : 16;
  const int row = blockIdx.x, n_turned = a.n_heads + a.n_kv_heads;
  const int width = (n_turned + a.n_kv_heads) * D;
  T* values = qkv + (size_t)row * width;
  const uint32_t position = a.positions[row], slot = a.slots[row];
  const uint32_t block = slot / a.block_tokens, place = slot % a.block_tokens;
  const size_t side = (size_t)a.block_tokens * D;
  T* home = pool + (size_t)block * a.n_kv_heads * 2 * side + (size_t)place * D;

  const int n_units = n_turned * SEGMENT;
  for (int first = 0; first < n_units; first += THREADS) {
    const int unit = first + threadIdx.x, head = unit / SEGMENT, chunk = unit % SEGMENT;
    const bool active = unit < n_units && chunk < CHUNKS;
    Eight low = {}, high = {};
    if (active) {
      const uint4* from = reinterpret_cast<const uint4*>(values + head * D);
      low = widen<T>(from[chunk]);
      high = widen<T>(from[CHUNKS + chunk]);
      if (a.bias) {
        const Eight x = load_f32(a.bias + head * D + 8 * chunk), y = load_f32(a.bias + head * D + HALF + 8 * chunk);
#pragma unroll
        for (int j = 0; j < 8; j++) low.v[j] += x.v[j], high.v[j] += y.v[j];
      }
    }
    if (a.q_norm) {
      float squares = 0.f;
#pragma unroll
      for (int j = 0; j < 8; j++) squares += low.v[j] * low.v[j] + high.v[j] * high.v[j];
#pragma unroll
      for (int o = SEGMENT / 2; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
      if (active) {
        const float* weight = head < a.n_heads ? a.q_norm : a.k_norm;
        const Eight x = load_f32(weight + 8 * chunk), y = load_f32(weight + HALF + 8 * chunk);
        const float scale = rsqrtf(squares / D + a.eps);
#pragma unroll
        for (int j = 0; j < 8; j++) low.v[j] *= scale * x.v[j], high.v[j] *= scale * y.v[j];
      }
    }
    if (active && (slot != NONE || head < a.n_heads)) {
      const Eight c = load_f32(a.cos + (size_t)position * HALF + 8 * chunk);
      const Eight s = load_f32(a.sin + (size_t)position * HALF + 8 * chunk);
      Eight u, v;
#pragma unroll
      for (int j = 0; j < 8; j++) {
        u.v[j] = low.v[j] * c.v[j] - high.v[j] * s.v[j];
        v.v[j] = high.v[j] * c.v[j] + low.v[j] * s.v[j];
      }
      T* to = head < a.n_heads ? values + head * D : home + (size_t)(head - a.n_heads) * 2 * side;
      reinterpret_cast<uint4*>(to)[chunk] = narrow<T>(u);
      reinterpret_cast<uint4*>(to)[CHUNKS + chunk] = narrow<T>(v);
    }
  }
  if (slot == NONE) return;
  for (int unit = threadIdx.x; unit < a.n_kv_heads * (D / 8); unit += THREADS) {
    const int head = unit / (D / 8), chunk = unit % (D / 8);
    const int column = (n_turned + head) * D + 8 * chunk;
    uint4 raw = *reinterpret_cast<const uint4*>(values + column);
    if (a.bias) {
      Eight x = widen<T>(raw);
      const Eight b = load_f32(a.bias + column);
#pragma unroll
      for (int j = 0; j < 8; j++) x.v[j] += b.v[j];
      raw = narrow<T>(x);
    }
    reinterpret_cast<uint4*>(home + ((size_t)head * 2 + 1) * side)[chunk] = raw;
  }
}

#define ROPE(T, D)                                                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                               \
      rope_##D##_##T(T* qkv, T* pool, const float* bias, const float* q_norm, const float* k_norm,                    \
                     const uint32_t* positions, const uint32_t* slots, const float* cos, const float* sin,            \
                     int n_heads, int n_kv_heads, int block_tokens, float eps) {                                      \
    rope<T, D>(qkv, pool, {bias, q_norm, k_norm, positions, slots, cos, sin, n_heads, n_kv_heads, block_tokens, eps}); \
  }
#define ROPES(D) ROPE(bf16, D) ROPE(f16, D)
ROPES(16)
ROPES(32)
ROPES(64)
ROPES(96)
ROPES(128)
ROPES(256)
