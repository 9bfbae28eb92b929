// What the attention kernels share: tiles, the paged pool in shared memory, tensor core steps, online softmax.
//
// A tile is some neighbouring packed queries (row of the batch x head of a KV head's group) over a range of
// positions of one block table. Rows of several sequences may share a tile over what their tables share.
#pragma once
#include "mma.cuh"

struct Tile {
  uint32_t first_query;  // packed: query q is head q % group of row rows[q / group]
  uint32_t n_queries;
  uint32_t first_block;  // in `tables`
  uint32_t begin, end;   // positions
  uint32_t part;         // which part of its rows' results this is
};

struct AttentionArgs {
  const Tile* tiles;
  const uint32_t* n_tiles;
  const uint32_t* rows;       // rows of the batch, packed queries' order
  const uint32_t* tables;     // block tables, back to back
  const uint32_t* positions;  // of each row of the batch
  const uint32_t* parts;      // of each row: where its parts begin, or NONE: one part, which is the result
  float* part_out;            // [parts, heads, D], normalised
  float* part_lse;            // [parts, heads], base 2
  int n_heads, n_kv_heads, block_tokens;
  int block_shift;            // block_tokens is a power of two
  uint32_t window;            // positions that a row sees, its own included
  float scale;                // of scores, times log2 e
  int q_stride;               // values of a row of q|k|v
};

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory, or zeros.
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;\n"); }
template <int N> __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N)); }

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}

// Values of a row of K or V in shared memory: an odd number of 16-byte pieces, so that eight rows' pieces lie in
// different banks.
template <int D> constexpr int ROW = D + 8;

// Positions [first, first + N) of one KV head into shared memory, by THREADS threads; zeros from `end` on.
template <typename T, int D, int N, int THREADS>
__device__ __forceinline__ void fetch(T* keys, T* values, const T* pool, const AttentionArgs& a, uint32_t first_block,
                                      int kv_head, uint32_t first, uint32_t end, int thread) {
  constexpr int PIECES = D / 8;
  const size_t side = (size_t)a.block_tokens * D;
#pragma unroll
  for (int i = thread; i < N * PIECES; i += THREADS) {
    const int n = i / PIECES, piece = i % PIECES;
    const uint32_t position = first + n;
    const bool valid = position < end;
    const uint32_t at = valid ? position : first;
    const uint32_t block = __ldg(a.tables + first_block + (at >> a.block_shift));
    const uint32_t place = at & (a.block_tokens - 1);
    const T* from = pool + ((size_t)block * a.n_kv_heads + kv_head) * 2 * side + place * D + piece * 8;
    copy_async(shared_address(keys + n * ROW<D> + piece * 8), from, valid);
    copy_async(shared_address(values + n * ROW<D> + piece * 8), from + side, valid);
  }
}

// The 16 queries of a warp: fragments, rows and the output so far.
template <typename T, int D> struct Queries {
  uint32_t q[D / 16][4];
  float out[D / 8][4];
  float largest[2], sum[2];
  uint32_t row[2];       // row of the batch of this lane's two queries, or NONE
  uint32_t head[2];      // of all heads
  uint32_t position[2];
  uint32_t least, most;  // positions of all 16

  __device__ __forceinline__ void load(const T* qkv, const AttentionArgs& a, const Tile& tile, int first, int kv_head) {
    const int lane = threadIdx.x & 31, group = a.n_heads / a.n_kv_heads;
    least = NONE;
    most = 0;
    const T* from[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const uint32_t query = first + lane / 4 + 8 * i;
      const bool valid = query < tile.n_queries;
      const uint32_t packed = tile.first_query + (valid ? query : 0);
      const uint32_t at = a.rows[packed / group];
      row[i] = valid ? at : NONE;
      head[i] = kv_head * group + packed % group;
      position[i] = a.positions[at];
      if (valid) {
        least = min(least, position[i]);
        most = max(most, position[i]);
      }
      from[i] = qkv + (size_t)at * a.q_stride + head[i] * D;
      largest[i] = -INFINITY;
      sum[i] = 0.f;
    }
    least = __reduce_min_sync(~0u, least);
    most = __reduce_max_sync(~0u, most);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      const int column = 16 * k + 2 * (lane & 3);
      q[k][0] = *reinterpret_cast<const uint32_t*>(from[0] + column);
      q[k][1] = *reinterpret_cast<const uint32_t*>(from[1] + column);
      q[k][2] = *reinterpret_cast<const uint32_t*>(from[0] + column + 8);
      q[k][3] = *reinterpret_cast<const uint32_t*>(from[1] + column + 8);
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) out[n][i] = 0.f;
  }

  // Scores of N positions from `first` on, softmax so far, and their values added; N is a multiple of 16.
  template <int N>
  __device__ __forceinline__ void attend(const T* keys, const T* values, uint32_t first, uint32_t end,
                                         const AttentionArgs& a) {
    const int lane = threadIdx.x & 31;
    float s[N / 8][4];
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[n][i] = 0.f;
    const uint32_t key = shared_address(keys + ((lane & 7) + ((lane >> 4) << 3)) * ROW<D> + ((lane >> 3) & 1) * 8);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
      for (int n = 0; n < N / 16; n++) {
        uint32_t b[4];
        load_matrices(b, key + (n * 16 * ROW<D> + k * 16) * sizeof(T));
        multiply<T>(s[2 * n], q[k], b[0], b[1]);
        multiply<T>(s[2 * n + 1], q[k], b[2], b[3]);
      }
    const bool sees_all = first + N <= end && first + N - 1 <= least && (a.window > most || first > most - a.window);
    float top[2] = {largest[0], largest[1]};
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float score = s[n][i] * a.scale;
        if (!sees_all) {
          const uint32_t at = first + 8 * n + 2 * (lane & 3) + (i & 1), own = position[i >> 1];
          if (at >= end || at > own || own - at >= a.window) score = -INFINITY;
        }
        s[n][i] = score;
        top[i >> 1] = fmaxf(top[i >> 1], score);
      }
    float factor[2], base[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], 2));
      base[i] = top[i] == -INFINITY ? 0.f : top[i];
      factor[i] = exp2f(largest[i] - base[i]);
      largest[i] = top[i];
      sum[i] *= factor[i];
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n][0] *= factor[0];
      out[n][1] *= factor[0];
      out[n][2] *= factor[1];
      out[n][3] *= factor[1];
    }
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[n][i] = exp2f(s[n][i] - base[i >> 1]);
        sum[i >> 1] += s[n][i];
      }
    const uint32_t value = shared_address(values + (lane & 15) * ROW<D> + (lane >> 4) * 8);
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
      const uint32_t p[4] = {pack<T>(s[2 * k][0], s[2 * k][1]), pack<T>(s[2 * k][2], s[2 * k][3]),
                             pack<T>(s[2 * k + 1][0], s[2 * k + 1][1]), pack<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        uint32_t b[4];
        load_matrices_transposed(b, value + (k * 16 * ROW<D> + n * 16) * sizeof(T));
        multiply<T>(out[2 * n], p, b[0], b[1]);
        multiply<T>(out[2 * n + 1], p, b[2], b[3]);
      }
    }
  }

  // Sums over the four lanes of a query.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
      sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
    }
  }

  // The result, or this tile's part of it.
  __device__ __forceinline__ void store(T* attended, const AttentionArgs& a, const Tile& tile) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (row[i] == NONE) continue;
      const float inverse = sum[i] > 0.f ? 1.f / sum[i] : 0.f;
      const uint32_t parts = a.parts[row[i]];
      if (parts == NONE) {
        T* to = attended + ((size_t)row[i] * a.n_heads + head[i]) * D + 2 * (lane & 3);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
          *reinterpret_cast<uint32_t*>(to + 8 * n) = pack<T>(out[n][2 * i] * inverse, out[n][2 * i + 1] * inverse);
      } else {
        const size_t at = (size_t)(parts + tile.part) * a.n_heads + head[i];
        float* to = a.part_out + at * D + 2 * (lane & 3);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
          *reinterpret_cast<float2*>(to + 8 * n) = make_float2(out[n][2 * i] * inverse, out[n][2 * i + 1] * inverse);
        if ((lane & 3) == 0) a.part_lse[at] = sum[i] > 0.f ? largest[i] + log2f(sum[i]) : -INFINITY;
      }
    }
  }
};

#define ATTENTION_PARAMETERS(T)                                                                                     \
  const T *qkv, const T *pool, T *attended, const Tile *tiles, const uint32_t *n_tiles, const uint32_t *rows,       \
      const uint32_t *tables, const uint32_t *positions, const uint32_t *parts, float *part_out, float *part_lse,   \
      int n_heads, int n_kv_heads, int block_tokens, uint32_t window, float scale
#define ATTENTION_ARGS(D)                                                                                           \
  {tiles,        n_tiles,                  rows,   tables,              positions, parts, part_out, part_lse, n_heads, n_kv_heads, \
   block_tokens, 31 - __clz(block_tokens), window, scale * 1.44269504f, (n_heads + 2 * n_kv_heads) * D}
