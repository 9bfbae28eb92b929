// From rows of logits to tokens, under masks of one bit a token.
#include "element.cuh"

// Larger floats have larger keys; NaN has the largest.
__device__ __forceinline__ uint32_t key_of(float x) {
  if (x != x) return NONE;
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

constexpr int THREADS = 256;

// best[row] = max over the allowed of key << 32 | ~token: the first of the largest, or a NaN. `best` is 0 before;
// block y takes `span` tokens of row x, a multiple of 4. Mask m is masks[m * words..], NONE allows all.
extern "C" __global__ void __launch_bounds__(THREADS)
    sample_argmax(const float* logits, const uint32_t* masks, const uint32_t* mask_of, unsigned long long* best,
                  int vocab, int words, int span) {
  __shared__ unsigned long long part[THREADS / 32];
  const float* row = logits + (size_t)blockIdx.x * vocab;
  const uint32_t mask = mask_of ? mask_of[blockIdx.x] : NONE;
  const uint32_t* allowed = mask == NONE ? nullptr : masks + (size_t)mask * words;
  unsigned long long top = 0;
  auto take = [&](float x, int token) {
    const unsigned long long key = (unsigned long long)key_of(x) << 32 | (uint32_t)~token;
    top = key > top ? key : top;
  };
  const int begin = blockIdx.y * span, end = min(vocab, begin + span);
  if (vocab % 4 == 0) {
#pragma unroll 4
    for (int i = begin + 4 * threadIdx.x; i < end; i += 4 * THREADS) {
      const uint32_t bits = allowed ? __ldg(allowed + i / 32) >> (i % 32) : ~0u;
      if ((bits & 15u) == 0) continue;
      const float4 x = *reinterpret_cast<const float4*>(row + i);
      if (bits & 1) take(x.x, i);
      if (bits & 2) take(x.y, i + 1);
      if (bits & 4) take(x.z, i + 2);
      if (bits & 8) take(x.w, i + 3);
    }
  } else {
    for (int i = begin + threadIdx.x; i < end; i += THREADS)
      if (!allowed || allowed[i / 32] >> (i % 32) & 1) take(row[i], i);
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    const unsigned long long other = __shfl_xor_sync(~0u, top, o);
    top = other > top ? other : top;
  }
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = top;
  __syncthreads();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++) top = part[i] > top ? part[i] : top;
    if (top) atomicMax(best + blockIdx.x, top);
  }
}

// weights are summed as whole numbers of 2^-40: in any order the same
constexpr float ONE = 1099511627776.f;

// sums[i] = the sum of e^(logit - best) over what row rows[i] allows, in units of 2^-40. `sums` is 0 before; blocks
// share a row as above.
extern "C" __global__ void __launch_bounds__(THREADS)
    sample_weigh(const float* logits, const uint32_t* masks, const uint32_t* mask_of, const uint32_t* rows,
                 const unsigned long long* best, unsigned long long* sums, int vocab, int words, int span) {
  __shared__ unsigned long long part[THREADS / 32];
  const uint32_t at = rows[blockIdx.x];
  const float* row = logits + (size_t)at * vocab;
  const uint32_t mask = mask_of ? mask_of[at] : NONE;
  const uint32_t* allowed = mask == NONE ? nullptr : masks + (size_t)mask * words;
  const float top = value_of((uint32_t)(best[at] >> 32));
  unsigned long long sum = 0;
  const int begin = blockIdx.y * span, end = min(vocab, begin + span);
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    if (allowed && !(__ldg(allowed + i / 32) >> (i % 32) & 1)) continue;
    sum += (unsigned long long)(expf(row[i] - top) * ONE);
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++) sum += part[i];
    if (sum) atomicAdd(sums + blockIdx.x, sum);
  }
}

// One draw.
struct Draw {
  uint32_t row, mask;
  float temperature, top_p, min_p;
  uint32_t top_k;  // 0: no bound
  double at;       // from 0 to below 1
};

constexpr int DRAW_THREADS = 1024;
constexpr float NEGLIGIBLE = 30.f;

struct Descent {
  unsigned long long sums[256];
  uint32_t counts[256];
  unsigned long long before;  // of what is heavier than the place found
  unsigned long long left;    // what remains of the target among the equals
  uint32_t key;
};

// Walks down from the heaviest weight until `target` (tokens, or weight) is used up: the key of the place where
// that is, and what lies before it. The target is less than the sum of all.
template <typename Weight>
__device__ void descend(Descent& d, const Weight& weight, int vocab, unsigned long long target, bool by_count) {
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) d.key = 0, d.before = 0, d.left = target;
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();
    const uint32_t prefix = d.key;
    for (int i = threadIdx.x; i < 256; i += DRAW_THREADS) d.sums[i] = 0, d.counts[i] = 0;
    __syncthreads();
    for (int base = 0; base < vocab; base += DRAW_THREADS) {
      const int i = base + threadIdx.x;
      const float w = i < vocab ? weight(i) : 0.f;
      const uint32_t key = __float_as_uint(w);
      const bool counts = w > 0.f && (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8));
      const uint32_t bin = key >> shift & 255;
      const unsigned long long parts = (unsigned long long)(w * ONE);
      // few bins are hot: a warp adds up by bin
      uint32_t open = __ballot_sync(~0u, counts);
      while (open) {
        const uint32_t chosen = __shfl_sync(~0u, bin, __ffs(open) - 1);
        const bool mine = counts && bin == chosen;
        const uint32_t same = __ballot_sync(~0u, mine);
        const uint32_t low = __reduce_add_sync(~0u, mine ? (uint32_t)(parts & 0xfffffu) : 0u);
        const uint32_t high = __reduce_add_sync(~0u, mine ? (uint32_t)(parts >> 20) : 0u);
        if (lane == 0) {
          atomicAdd(&d.sums[chosen], ((unsigned long long)high << 20) + low);
          atomicAdd(&d.counts[chosen], (uint32_t)__popc(same));
        }
        open &= ~same;
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = 255;
      for (; bin > 0; bin--) {
        const unsigned long long used = by_count ? d.counts[bin] : d.sums[bin];
        if (used > d.left) break;
        d.left -= used;
        d.before += d.sums[bin];
      }
      d.key = prefix | (uint32_t)bin << shift;
    }
  }
  __syncthreads();
}

// Draws a token as `engine/sampling.rs` does: weights e^((logit - best)/temperature), heaviest first, equals by
// token; cut by top-k, then by top-p of what is left, then by min-p. One block a draw; `best` as above.
extern "C" __global__ void __launch_bounds__(DRAW_THREADS)
    sample_draw(const float* logits, const uint32_t* masks, const Draw* draws, const unsigned long long* best,
                uint32_t* tokens, int vocab, int words) {
  __shared__ Descent d;
  __shared__ unsigned long long total, above;
  __shared__ uint32_t ties[DRAW_THREADS];
  const Draw draw = draws[blockIdx.x];
  const float* row = logits + (size_t)draw.row * vocab;
  const uint32_t* allowed = draw.mask == NONE ? nullptr : masks + (size_t)draw.mask * words;
  const unsigned long long winner = best[draw.row];
  const float top = value_of((uint32_t)(winner >> 32));
  if (!(draw.temperature > 0.f) || !isfinite(top) || winner == 0) {
    if (threadIdx.x == 0) tokens[blockIdx.x] = winner == 0 || !isfinite(top) ? NONE : ~(uint32_t)winner;
    return;
  }
  const float inverse = 1.f / draw.temperature, floor = top - NEGLIGIBLE * draw.temperature;
  auto weight = [&](int i) {
    if (allowed && !(allowed[i / 32] >> (i % 32) & 1)) return 0.f;
    const float x = row[i];
    return x >= floor ? expf((x - top) * inverse) : 0.f;
  };
  if (threadIdx.x == 0) total = 0, above = 0;
  __syncthreads();
  unsigned long long own = 0, own_above = 0;
  for (int i = threadIdx.x; i < vocab; i += DRAW_THREADS) {
    const float w = weight(i);
    const unsigned long long parts = (unsigned long long)(w * ONE);
    own += parts;
    if (w >= draw.min_p) own_above += parts;
  }
  atomicAdd(&total, own);
  atomicAdd(&above, own_above);
  __syncthreads();
  unsigned long long kept = total;
  if (draw.top_k > 0 && draw.top_k < vocab) {
    // fewer candidates than that: the walk ends at key 0 with all of them before it
    descend(d, weight, vocab, draw.top_k, true);
    const unsigned long long each = (unsigned long long)(__uint_as_float(d.key) * ONE);
    kept = min(kept, d.before + d.left * each);
  }
  if (draw.top_p < 1.f) {
    const unsigned long long target = (unsigned long long)((double)draw.top_p * (double)kept);
    if (target < kept) {
      descend(d, weight, vocab, target, false);
      const unsigned long long each = (unsigned long long)(__uint_as_float(d.key) * ONE);
      // a token is kept if the sum before it is below the target
      const unsigned long long n = each ? (d.left + each - 1) / each : 0;
      kept = min(kept, max(d.before + n * each, (unsigned long long)ONE));
    }
  }
  kept = min(kept, max(above, (unsigned long long)ONE));
  const unsigned long long target = min(kept - 1, (unsigned long long)(draw.at * (double)kept));
  descend(d, weight, vocab, target, false);
  // which of the equals, in order of tokens
  const unsigned long long each = (unsigned long long)(__uint_as_float(d.key) * ONE);
  unsigned long long nth = each ? d.left / each : 0;
  const int stretch = (vocab + DRAW_THREADS - 1) / DRAW_THREADS;
  const int begin = min(vocab, (int)threadIdx.x * stretch), end = min(vocab, begin + stretch);
  uint32_t equals = 0;
  for (int i = begin; i < end; i++) equals += __float_as_uint(weight(i)) == d.key;
  ties[threadIdx.x] = equals;
  __syncthreads();
  if (threadIdx.x == 0) tokens[blockIdx.x] = ~(uint32_t)winner;
  __syncthreads();
  unsigned long long before = 0;
  for (int i = 0; i < (int)threadIdx.x; i++) before += ties[i];
  if (nth >= before && nth < before + equals)
    for (int i = begin; i < end; i++)
      if (__float_as_uint(weight(i)) == d.key && before++ == nth) tokens[blockIdx.x] = i;
}
