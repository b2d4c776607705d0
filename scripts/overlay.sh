#!/usr/bin/env bash
# Installs another vLLM's Python beside an environment: put first on the path, it takes all else from there.
# Usage: overlay.sh VENV DIRECTORY REQUIREMENTS
set -euo pipefail

venv=$1
overlay=$2
requirements=$3
read -r -a pip_args <<<"${PIP_ARGS:-}"

echo "installing $(grep -o '^vllm.*' "$requirements") into $overlay (once)"
rm -rf "$overlay"
"$venv/bin/python" -m pip install --disable-pip-version-check -qq "${pip_args[@]}" \
  --no-deps --no-compile --target "$overlay" -r "$requirements"

# A wheel for GPUs: its kernels, most of its size, go, and the environment's CPU kernels take their place.
if grep -q '^vllm==' "$requirements"; then
  find "$overlay/vllm" -name '*.so' -delete
  rm -f "$overlay/vllm/vllm-rs"
  ln -sr "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"/vllm/*.so "$overlay/vllm/"
fi
