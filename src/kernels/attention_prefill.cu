// Attention of wide tiles: rows of one sequence that are read in one go, and rows of many sequences over the
// head that their tables share (cascade), which is so read once for all of them.
//
// Flash attention (Dao et al. 2022) on mma.sync: each warp keeps 16 queries and walks over the positions, which
// lie in shared memory, two stages deep.
#include "attention.cuh"

template <typename T, int D, int WARPS, int N>
__device__ __forceinline__ void prefill(const T* qkv, const T* pool, T* attended, const AttentionArgs& a) {
  constexpr int THREADS = 32 * WARPS, SIDE = N * ROW<D>;
  extern __shared__ __align__(16) unsigned char memory[];
  T* const stages = reinterpret_cast<T*>(memory);
  if (blockIdx.x >= *a.n_tiles) return;
  const Tile tile = a.tiles[blockIdx.x];
  const int kv_head = blockIdx.y, warp = threadIdx.x >> 5;
  auto get = [&](int stage, uint32_t first) {
    T* keys = stages + stage * 2 * SIDE;
    fetch<T, D, N, THREADS>(keys, keys + SIDE, pool, a, tile.first_block, kv_head, first, tile.end, threadIdx.x);
    copy_commit();
  };
  // rows that end before a part of their positions have an empty tile there
  if (tile.begin < tile.end) get(0, tile.begin);
  Queries<T, D> queries;
  queries.load(qkv, a, tile, 16 * warp, kv_head);
  const bool idle = 16 * warp >= tile.n_queries;
  int stage = 0;
  for (uint32_t first = tile.begin; first < tile.end; first += N, stage ^= 1) {
    if (first + N < tile.end) {
      get(stage ^ 1, first + N);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    const T* keys = stages + stage * 2 * SIDE;
    if (!idle && first <= queries.most) queries.template attend<N>(keys, keys + SIDE, first, tile.end, a);
    __syncthreads();
  }
  if (idle) return;
  queries.finish();
  queries.store(attended, a, tile);
}

// Queries of a tile: 16 * WARPS.
#define PREFILL(T, D, WARPS, N)                                                                                    \
  extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)                                                      \
      attention_prefill_##D##_##WARPS##_##T(ATTENTION_PARAMETERS(T)) {                                             \
    prefill<T, D, WARPS, N>(qkv, pool, attended, ATTENTION_ARGS(D));                                               \
  }
#define PREFILLS(D, N) PREFILL(bf16, D, 4, N) PREFILL(f16, D, 4, N) PREFILL(bf16, D, 8, N) PREFILL(f16, D, 8, N)
PREFILLS(16, 64)
PREFILLS(32, 64)
PREFILLS(64, 64)
PREFILLS(96, 64)
PREFILLS(128, 64)
PREFILLS(256, 32)
