#!/usr/bin/env bash
# Fills a virtual environment with Holdfast, its checks, and vLLM on the CPU. Can be run again at any time.
# Usage: install.sh VENV ENGINE_REQUIREMENTS
set -euo pipefail

venv=$1
engine=$2
python=${PYTHON:?}
read -r -a pip_args <<<"${PIP_ARGS:-}"

# A directory without a working pip is the rest of an interrupted call.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi
install() { "$venv/bin/python" -m pip install --disable-pip-version-check -qq "${pip_args[@]}" "$@"; }

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: $("$venv/bin/python" --version) is too old, Holdfast needs 3.11 or newer" >&2
  echo "hint: make PYTHON=/path/to/python3.11 ..." >&2
  exit 1
fi

echo "installing vLLM's CPU build into $venv (a few minutes, once)"
if ! install -r "$engine"; then
  echo "error: vLLM's CPU build ($engine) cannot be installed for $("$venv/bin/python" --version) on $(uname -sm)" >&2
  echo "hint: it needs Linux and Python 3.11; on a GPU machine use pip install 'holdfast[vllm]'" >&2
  exit 1
fi
# The index offers CUDA builds of these three; under the CPU torch they break `import vllm`.
"$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null

install -e '.[compress,gateway,mcp,plots,sim,zst]'
# pip before 25.1 does not know dependency groups.
"$venv/bin/python" - <<'PYTHON' >"$venv/groups.txt"
import tomllib

with open("pyproject.toml", "rb") as file:
    groups = tomllib.load(file)["dependency-groups"]
print(*(requirement for name in ("test", "lint", "bench") for requirement in groups[name]), sep="\n")
PYTHON
install -r "$venv/groups.txt"
