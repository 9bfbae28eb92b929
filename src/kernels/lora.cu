// What adapters add to a linear layer: out += B (A x), for rows of many adapters in one launch.
//
// A tile is up to 16 rows of one adapter, taken from a list that is sorted by adapter. A linear layer of several
// modules (q|k|v, gate|up) has their A's stacked, each padded to `rank` rows, and B [columns, rank] of all of
// them. The order of summands does not matter to a tensor core step as long as both sides agree on it, so that
// every lane takes neighbouring values, 16 bytes (shrink) or 8 (expand) at a time.
#include "activation.cuh"
#include "mma.cuh"

struct LoraTile {
  uint32_t first, n;  // in the list of rows
  uint32_t slot;      // or NONE: rows without an adapter
};

// Of one linear layer, by slot.
template <typename T> struct Pair {
  const T* a;  // [modules * rank, k]
  const T* b;  // [columns, rank]
  uint32_t rank;  // of each module, a multiple of 16
  uint32_t unused;
};

constexpr int SHRINK_WARPS = 16;

// low[list, module * rank + i] = A x for 16 of the ranks; the warps share k among themselves.
template <typename T>
__device__ __forceinline__ void shrink(const T* x, T* low, const Pair<T>* pairs, const LoraTile* tiles,
                                       const uint32_t* n_tiles, const uint32_t* rows, int k, int modules,
                                       int low_stride) {
  __shared__ float sums[SHRINK_WARPS][16][17];
  if (blockIdx.x >= *n_tiles) return;
  const LoraTile tile = tiles[blockIdx.x];
  if (tile.slot == NONE) return;
  const Pair<T> pair = pairs[tile.slot];
  const int first_rank = 16 * blockIdx.y;
  if (!pair.a || first_rank >= modules * pair.rank) return;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const T* xs[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint32_t at = g + 8 * i;
    xs[i] = x + (size_t)rows[tile.first + (at < tile.n ? at : 0)] * k + 8 * t;
  }
  const T* as = pair.a + (size_t)(first_rank + g) * k + 8 * t;
  float acc[2][4] = {};
#pragma unroll 4
  for (int c = 32 * warp; c < k; c += 32 * SHRINK_WARPS) {
    uint4 u[2] = {}, w[2] = {};
    if (c + 8 * t < k) {
      u[0] = *reinterpret_cast<const uint4*>(xs[0] + c);
      u[1] = *reinterpret_cast<const uint4*>(xs[1] + c);
      w[0] = __ldg(reinterpret_cast<const uint4*>(as + c));
      w[1] = __ldg(reinterpret_cast<const uint4*>(as + 8 * (size_t)k + c));
    }
    const uint32_t low_half[4] = {u[0].x, u[1].x, u[0].y, u[1].y}, high_half[4] = {u[0].z, u[1].z, u[0].w, u[1].w};
#pragma unroll
    for (int n = 0; n < 2; n++) {
      multiply<T>(acc[n], low_half, w[n].x, w[n].y);
      multiply<T>(acc[n], high_half, w[n].z, w[n].w);
    }
  }
#pragma unroll
  for (int n = 0; n < 2; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) sums[warp][g + 8 * (i >> 1)][8 * n + 2 * t + (i & 1)] = acc[n][i];
  __syncthreads();
  if (threadIdx.x < 128) {
    const int row = threadIdx.x / 8, column = 2 * (threadIdx.x % 8);
    float low_sum = 0.f, high_sum = 0.f;
#pragma unroll
    for (int w = 0; w < SHRINK_WARPS; w++) low_sum += sums[w][row][column], high_sum += sums[w][row][column + 1];
    if (row < tile.n)
      *reinterpret_cast<uint32_t*>(low + (size_t)(tile.first + row) * low_stride + first_rank + column) =
          pack<T>(low_sum, high_sum);
  }
}

// out[row, column] += B low, 32 columns a warp. Module 1 begins at column `second`, module 2 at `third`.
template <typename T>
__device__ __forceinline__ void expand(const T* low, T* out, const Pair<T>* pairs, const LoraTile* tiles,
                                       const uint32_t* n_tiles, const uint32_t* rows, int columns, int second,
                                       int third, int low_stride) {
  if (blockIdx.x >= *n_tiles) return;
  const LoraTile tile = tiles[blockIdx.x];
  if (tile.slot == NONE) return;
  const Pair<T> pair = pairs[tile.slot];
  if (!pair.b) return;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int first = (blockIdx.y * (blockDim.x >> 5) + warp) * 32;
  if (first >= columns) return;
  const int module = (first >= second) + (first >= third), rank = pair.rank;
  const T* y[2];
  T* to[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint32_t at = tile.first + (g + 8 * i < tile.n ? g + 8 * i : 0);
    y[i] = low + (size_t)at * low_stride + module * rank + 4 * t;
    to[i] = out + (size_t)rows[at] * columns + first + 8 * t;
  }
  float acc[4][4] = {};
  for (int r = 0; r < rank; r += 16) {
    const uint2 u = *reinterpret_cast<const uint2*>(y[0] + r), v = *reinterpret_cast<const uint2*>(y[1] + r);
    const uint32_t a[4] = {u.x, v.x, u.y, v.y};
#pragma unroll
    for (int n = 0; n < 4; n++) {
      // so that a lane's results are eight neighbouring columns
      const int column = first + 8 * (g >> 1) + 2 * n + (g & 1);
      uint2 w = {};
      if (column < columns) w = __ldg(reinterpret_cast<const uint2*>(pair.b + (size_t)column * rank + 4 * t + r));
      multiply<T>(acc[n], a, w.x, w.y);
    }
  }
  if (first + 8 * t >= columns) return;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (g + 8 * i >= tile.n) continue;
    Eight sum = widen<T>(*reinterpret_cast<const uint4*>(to[i]));
#pragma unroll
    for (int n = 0; n < 4; n++) sum.v[2 * n] += acc[n][2 * i], sum.v[2 * n + 1] += acc[n][2 * i + 1];
    *reinterpret_cast<uint4*>(to[i]) = narrow<T>(sum);
  }
}

// activated[row] = gate(g + B low) * (u + B low) of gate_up[row] = [g|u], 32 columns of both a warp: what adapters add to
// gate|up never goes to memory. Tiles cover all rows; those without an adapter have slot NONE.
template <typename T, bool GELU>
__device__ __forceinline__ void gate(const T* low, const T* gate_up, T* activated, const Pair<T>* pairs,
                                     const LoraTile* tiles, const uint32_t* n_tiles, const uint32_t* rows, int ffn,
                                     int low_stride) {
  if (blockIdx.x >= *n_tiles) return;
  const LoraTile tile = tiles[blockIdx.x];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int first = (blockIdx.y * (blockDim.x >> 5) + warp) * 32;
  if (first >= ffn) return;
  const bool inside = first + 8 * t < ffn;
  uint32_t at[2], row[2];
  uint4 raw[2][2];  // [row][module]
#pragma unroll
  for (int i = 0; i < 2; i++) {
    at[i] = tile.first + (g + 8 * i < tile.n ? g + 8 * i : 0);
    row[i] = rows[at[i]];
#pragma unroll
    for (int m = 0; m < 2; m++)
      raw[i][m] = inside ? *reinterpret_cast<const uint4*>(gate_up + (size_t)row[i] * 2 * ffn + m * ffn + first + 8 * t)
                         : make_uint4(0, 0, 0, 0);
  }
  float acc[2][4][4] = {};
  if (tile.slot != NONE && pairs[tile.slot].b) {
    const Pair<T> pair = pairs[tile.slot];
    const int rank = pair.rank;
    for (int r = 0; r < rank; r += 16)
#pragma unroll
      for (int m = 0; m < 2; m++) {
        const uint2 u = *reinterpret_cast<const uint2*>(low + (size_t)at[0] * low_stride + m * rank + 4 * t + r);
        const uint2 v = *reinterpret_cast<const uint2*>(low + (size_t)at[1] * low_stride + m * rank + 4 * t + r);
        const uint32_t a[4] = {u.x, v.x, u.y, v.y};
#pragma unroll
        for (int n = 0; n < 4; n++) {
          // so that a lane's results are eight neighbouring columns
          const int column = first + 8 * (g >> 1) + 2 * n + (g & 1);
          uint2 w = {};
          if (column < ffn)
            w = __ldg(reinterpret_cast<const uint2*>(pair.b + (size_t)(m * ffn + column) * rank + 4 * t + r));
          multiply<T>(acc[m][n], a, w.x, w.y);
        }
      }
  }
  if (!inside) return;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (g + 8 * i >= tile.n) continue;
    Eight x = widen<T>(raw[i][0]), y = widen<T>(raw[i][1]);
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        x.v[2 * n + j] += acc[0][n][2 * i + j];
        y.v[2 * n + j] += acc[1][n][2 * i + j];
      }
#pragma unroll
    for (int j = 0; j < 8; j++) x.v[j] = activate<GELU>(x.v[j]) * y.v[j];
    *reinterpret_cast<uint4*>(activated + (size_t)row[i] * ffn + first + 8 * t) = narrow<T>(x);
  }
}

#define LORA_GATE(T, NAME, GELU)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                                 \
      lora_##NAME##_##T(const T* low, const T* gate_up, T* activated, const Pair<T>* pairs, const LoraTile* tiles,  \
                        const uint32_t* n_tiles, const uint32_t* rows, int ffn, int low_stride) {                   \
    gate<T, GELU>(low, gate_up, activated, pairs, tiles, n_tiles, rows, ffn, low_stride);                           \
  }
LORA_GATE(bf16, silu, false)
LORA_GATE(f16, silu, false)
LORA_GATE(bf16, gelu, true)
LORA_GATE(f16, gelu, true)

#define LORA(T)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(32 * SHRINK_WARPS)                                                   \
      lora_shrink_##T(const T* x, T* low, const Pair<T>* pairs, const LoraTile* tiles, const uint32_t* n_tiles,     \
                      const uint32_t* rows, int k, int modules, int low_stride) {                                   \
    shrink<T>(x, low, pairs, tiles, n_tiles, rows, k, modules, low_stride);                                         \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256)                                                                 \
      lora_expand_##T(const T* low, T* out, const Pair<T>* pairs, const LoraTile* tiles, const uint32_t* n_tiles,   \
                      const uint32_t* rows, int columns, int second, int third, int low_stride) {                   \
    expand<T>(low, out, pairs, tiles, n_tiles, rows, columns, second, third, low_stride);                           \
  }
LORA(bf16)
LORA(f16)
