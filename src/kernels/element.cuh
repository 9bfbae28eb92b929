// Values of 16 bits, moved 16 bytes at a time and computed with in f32.
//
// Moved as uint4: a struct of pairs, even an aligned one, compiles to accesses of 4 bytes.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;
typedef __half f16;

constexpr uint32_t NONE = 0xffffffffu;

template <typename T> __device__ __forceinline__ float2 unpack(uint32_t pair);
template <> __device__ __forceinline__ float2 unpack<bf16>(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
template <> __device__ __forceinline__ float2 unpack<f16>(uint32_t pair) {
  return __half22float2(*reinterpret_cast<__half2*>(&pair));
}

template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<bf16>(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<uint32_t*>(&pair);
}
template <> __device__ __forceinline__ uint32_t pack<f16>(float low, float high) {
  __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<uint32_t*>(&pair);
}

// Eight neighbouring values.
struct Eight {
  float v[8];
};

template <typename T> __device__ __forceinline__ Eight widen(uint4 raw) {
  Eight out;
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 pair = unpack<T>(words[i]);
    out.v[2 * i] = pair.x;
    out.v[2 * i + 1] = pair.y;
  }
  return out;
}

template <typename T> __device__ __forceinline__ uint4 narrow(const Eight& x) {
  return make_uint4(pack<T>(x.v[0], x.v[1]), pack<T>(x.v[2], x.v[3]), pack<T>(x.v[4], x.v[5]),
                    pack<T>(x.v[6], x.v[7]));
}

// Eight values of f32 at a place aligned to 16 bytes.
__device__ __forceinline__ Eight load_f32(const float* from) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(~0u, x, o);
  return x;
}

// Sum over the block, the same in every thread; `part` holds 32 values and is free again after the next barrier.
__device__ __forceinline__ float block_sum(float x, float* part) {
  x = warp_sum(x);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, n_warps = (blockDim.x + 31) >> 5;
  if (lane == 0) part[warp] = x;
  __syncthreads();
  return warp_sum(lane < n_warps ? part[lane] : 0.f);
}
