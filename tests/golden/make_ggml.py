#!/usr/bin/env python3
"""Blocks of every GGUF format that is read exactly, with the values that llama.cpp's own Python reads in them.

usage: make_ggml.py OUT_FILE
Needs gguf, numpy, safetensors. Seeded. The bytes are random except for the scales, which are made small and
finite: a quantiser would leave many bit patterns out. Per format two rows of 512 weights.
"""
import sys
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize
from safetensors.numpy import save_file

# where a block's f16 scales lie
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
          T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}

random = np.random.default_rng(5)
tensors = {}
for kind, places in SCALES.items():
    block, size = GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (2 * 512 // block, size), dtype=np.uint8)
    for place in places:
        scale = random.uniform(-0.1, 0.1, len(raw)).astype(np.float16)
        raw[:, place:place + 2] = scale.view(np.uint8).reshape(-1, 2)
    raw = raw.reshape(2, -1)
    tensors[f"{kind.name}.raw"] = raw
    tensors[f"{kind.name}.values"] = dequantize(raw, kind).astype(np.float32)
save_file(tensors, sys.argv[1])
print({name: t.shape for name, t in tensors.items()})
