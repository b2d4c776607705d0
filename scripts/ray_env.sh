#!/usr/bin/env bash
# Fills a virtual environment with Ray Serve and what its tests need, without vLLM.
# Usage: ray_env.sh VENV REQUIREMENTS
set -euo pipefail

venv=$1
requirements=$2
python=${PYTHON:?}
read -r -a pip_args <<<"${PIP_ARGS:-}"

echo "installing $(grep -o '^ray.*' "$requirements") into $venv (once)"
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --disable-pip-version-check -qq "${pip_args[@]}" -r "$requirements" -e '.[gateway]' \
  hypothesis pytest pytest-asyncio pytest-timeout
