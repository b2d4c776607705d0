"""All policies side by side in the simulator, on the set-ups that papers used.

python benchmarks/policies.py --traces PATH [--setup NAME] [--seeds N] [--jobs N] [--output DIR]

`cachewise`: N sessions started together on 2x H200 with Qwen2.5-Coder-32B, chunks of 512, N from 5
to 40. `cliff`: 4 to 32 sessions live at once on one H100 with Llama-3.1-8B. `overcommit`: 20
sessions, more and more of them at once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

POLICIES = (
    "stateless,vllm-default,autellix,cachesage,cachewise,cachewise-oracle,continuum,infercept,"
    "kvflow,marconi,saga,thunderagent,holdfast,clairvoyant"
)
FEW = "stateless,vllm-default,cachewise,holdfast,clairvoyant"
# Options of each `holdfast simulate`; N sessions at once out of M is "N/M".
SETUPS: dict[str, tuple[list[str], list[str]]] = {
    "cachewise": (
        ["--profile", "2xh200-qwen2.5-coder-32b", "--policies", FEW],
        ["5/5", "10/10", "20/20", "30/30", "40/40"],
    ),
    "cliff": (
        ["--profile", "h100-llama3.1-8b", "--policies", "vllm-default,holdfast,clairvoyant"],
        ["4/32", "8/32", "16/32", "32/32"],
    ),
    "overcommit": (
        ["--profile", "h100-llama3.1-8b", "--policies", POLICIES],
        ["3/20", "6/20", "10/20"],
    ),
}
GAP_CAP_S = "120"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--setup", choices=list(SETUPS), action="append")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.setup or SETUPS:
        arguments, loads = SETUPS[name]
        for load in loads:
            concurrency, _, num_sessions = load.partition("/")
            stem = options.output / f"policies-{name}-{concurrency}"
            command = [sys.executable, "-m", "holdfast", "simulate", *arguments]
            command += ["--concurrency", concurrency, "--sessions", num_sessions]
            command += ["--gap-cap-s", GAP_CAP_S, "--max-model-len", "200000"]
            command += ["--seeds", options.seeds, "--jobs", options.jobs]
            command += ["--json", f"{stem}.json"]
            if options.traces is not None:
                command += ["--traces", str(options.traces)]
            print("$ holdfast", *command[3:], flush=True)
            table = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(table)
            Path(f"{stem}.txt").write_text(table)


if __name__ == "__main__":
    main()
