// Attention of narrow tiles (up to 16 queries: a decoding row, or a few) over a part of the positions, and the
// kernel that puts the parts of a row together (split-K: "flash decoding").
//
// Four warps take turns at the positions, 16 at a time, each with copies in flight of its own; no barrier until
// the end, where their sums are joined.
#include "attention.cuh"

constexpr int WARPS = 4, N = 16;

template <typename T, int D, int STAGES>
__device__ __forceinline__ void decode(const T* qkv, const T* pool, T* attended, const AttentionArgs& a) {
  constexpr int SIDE = N * ROW<D>;
  extern __shared__ __align__(16) unsigned char memory[];
  if (blockIdx.x >= *a.n_tiles) return;
  const Tile tile = a.tiles[blockIdx.x];
  const int kv_head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  T* const stages = reinterpret_cast<T*>(memory) + warp * STAGES * 2 * SIDE;
  uint32_t ahead = tile.begin + warp * N;
  auto get = [&](int stage) {
    if (ahead < tile.end) {
      T* keys = stages + stage * 2 * SIDE;
      fetch<T, D, N, 32>(keys, keys + SIDE, pool, a, tile.first_block, kv_head, ahead, tile.end, lane);
    }
    copy_commit();
    ahead += WARPS * N;
  };
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; stage++) get(stage);
  Queries<T, D> queries;
  queries.load(qkv, a, tile, 0, kv_head);
  int stage = 0;
  for (uint32_t first = tile.begin + warp * N; first < tile.end; first += WARPS * N) {
    get(stage == 0 ? STAGES - 1 : stage - 1);
    copy_wait<STAGES - 1>();
    __syncwarp();
    const T* keys = stages + stage * 2 * SIDE;
    queries.template attend<N>(keys, keys + SIDE, first, tile.end, a);
    __syncwarp();
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }
  copy_wait<0>();
  queries.finish();
  // the other warps' sums through shared memory, over the stages
  __syncthreads();
  constexpr int SLOT = 16 * (D + 4);
  float* const slots = reinterpret_cast<float*>(memory);
  float* const tops = slots + (WARPS - 1) * SLOT;
  if (warp > 0) {
    float* mine = slots + (warp - 1) * SLOT;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int query = lane / 4 + 8 * i;
#pragma unroll
      for (int n = 0; n < D / 8; n++)
        *reinterpret_cast<float2*>(mine + query * (D + 4) + 8 * n + 2 * (lane & 3)) =
            make_float2(queries.out[n][2 * i], queries.out[n][2 * i + 1]);
      if ((lane & 3) == 0) {
        tops[((warp - 1) * 16 + query) * 2] = queries.largest[i];
        tops[((warp - 1) * 16 + query) * 2 + 1] = queries.sum[i];
      }
    }
  }
  __syncthreads();
  if (warp > 0) return;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int query = lane / 4 + 8 * i;
#pragma unroll
    for (int w = 0; w < WARPS - 1; w++) {
      const float top = tops[(w * 16 + query) * 2], sum = tops[(w * 16 + query) * 2 + 1];
      const float largest = fmaxf(queries.largest[i], top);
      const float base = largest == -INFINITY ? 0.f : largest;
      const float own = exp2f(queries.largest[i] - base), other = exp2f(top - base);
      queries.largest[i] = largest;
      queries.sum[i] = queries.sum[i] * own + sum * other;
      const float* theirs = slots + w * SLOT + query * (D + 4) + 2 * (lane & 3);
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        const float2 pair = *reinterpret_cast<const float2*>(theirs + 8 * n);
        queries.out[n][2 * i] = queries.out[n][2 * i] * own + pair.x * other;
        queries.out[n][2 * i + 1] = queries.out[n][2 * i + 1] * own + pair.y * other;
      }
    }
  }
  queries.store(attended, a, tile);
}

#define DECODE(T, D, STAGES)                                                                                        \
  extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                          \
      attention_decode_##D##_##T(ATTENTION_PARAMETERS(T)) {                                                         \
    decode<T, D, STAGES>(qkv, pool, attended, ATTENTION_ARGS(D));                                                   \
  }
#define DECODES(D, STAGES) DECODE(bf16, D, STAGES) DECODE(f16, D, STAGES)
DECODES(16, 4)
DECODES(32, 4)
DECODES(64, 4)
DECODES(96, 3)
DECODES(128, 3)
DECODES(256, 2)

// Row `split[i]` of the batch has `n_parts[i]` parts: their average, weighted by their sums.
template <typename T>
__device__ __forceinline__ void join(const float* part_out, const float* part_lse, const uint32_t* parts,
                                     const uint32_t* split, const uint32_t* n_parts, const uint32_t* n_split,
                                     T* attended, int n_heads, int dim) {
  if (blockIdx.x >= *n_split) return;
  const uint32_t row = split[blockIdx.x], count = n_parts[blockIdx.x], first = parts[row];
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < n_heads * dim / 4; i += gridDim.y * blockDim.x) {
    const int head = 4 * i / dim;
    float top = -INFINITY;
    for (uint32_t p = 0; p < count; p++) top = fmaxf(top, part_lse[(size_t)(first + p) * n_heads + head]);
    float4 sum = {0.f, 0.f, 0.f, 0.f};
    float weights = 0.f;
    for (uint32_t p = 0; p < count; p++) {
      const size_t at = (size_t)(first + p) * n_heads;
      const float weight = exp2f(part_lse[at + head] - top);
      const float4 x = reinterpret_cast<const float4*>(part_out + at * dim)[i];
      weights += weight;
      sum.x += weight * x.x, sum.y += weight * x.y, sum.z += weight * x.z, sum.w += weight * x.w;
    }
    const float inverse = 1.f / weights;
    reinterpret_cast<uint2*>(attended + (size_t)row * n_heads * dim)[i] =
        make_uint2(pack<T>(sum.x * inverse, sum.y * inverse), pack<T>(sum.z * inverse, sum.w * inverse));
  }
}

#define JOIN(T)                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                  \
      attention_join_##T(const float* part_out, const float* part_lse, const uint32_t* parts, const uint32_t* split, \
                         const uint32_t* n_parts, const uint32_t* n_split, T* attended, int n_heads, int dim) {      \
    join<T>(part_out, part_lse, parts, split, n_parts, n_split, attended, n_heads, dim);                             \
  }
JOIN(bf16)
JOIN(f16)
