// Gates of a feed-forward block.
#pragma once
#include "element.cuh"

template <bool GELU> __device__ __forceinline__ float activate(float x) {
  // (1 + tanh(z))/2 = 1/(1 + e^-2z), with z = sqrt(2/pi) (x + 0.044715 x^3)
  const float slope = GELU ? x * (1.5957692f + 0.071354814f * x * x) : x;
  // a divisor beyond 2^126 would give 0/0 or NaN in the fast division
  return slope < -80.f ? 0.f : __fdividef(x, 1.f + __expf(-slope));
}
