#!/usr/bin/env bash
# Lays out the CUDA compiler that the feature `cuda` is built with, from Python wheels: no root, no installer, no
# card. Re-runnable: a finished folder is left alone.
#
#   build/cuda.sh [DEST]     DEST defaults to ./.cuda
#   source DEST/env.sh       CUDA_HOME, PATH, and what candle's build scripts want to know
#
# Overrides: CUDA_TOOLKIT_VERSION (13.0.2), PYTHON (python3), CUDA_COMPUTE_CAP (90)
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'; exit ;; esac

here=$(cd "$(dirname "$0")" && pwd)
version=${CUDA_TOOLKIT_VERSION:-13.0.2}
dest=${1:-.cuda}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
home=$dest/nvidia/cu13
extras=nvcc,crt,nvvm,cudart,cccl
stamp=$dest/.laid-out

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$version $extras" ]; then
  rm -rf "$dest/nvidia" "$dest"/*.dist-info "$stamp"
  "${PYTHON:-python3}" -m pip install --quiet --no-compile --no-warn-script-location --root-user-action=ignore \
    --only-binary=:all: --target "$dest" "cuda-toolkit[$extras]==$version"
  # nvcc and build scripts look in lib64; the wheels have lib
  ln -sfn lib "$home/lib64"
  # the runtime is linked statically: a shared one must not be found first
  rm -f "$home"/lib/libcudart.so*
  printf '%s' "$version $extras" >"$stamp"
fi

cat >"$dest/env.sh" <<ENV
# source this file
export CUDA_HOME='$home'
export PATH="\$CUDA_HOME/bin:\$PATH"
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-90}
export CUDARC_CUDA_VERSION=\${CUDARC_CUDA_VERSION:-13000}
# candle's kernels of quantised and mixture-of-experts models are not called, and are most of its build
export NVCC='$here/nvcc-lean'
export CUDAFORGE_THREADS=\${CUDAFORGE_THREADS:-2}
ENV

"$home/bin/nvcc" --version | tail -2
echo "now: source $dest/env.sh && cargo build --release --features cuda"
