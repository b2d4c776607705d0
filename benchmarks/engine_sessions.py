"""Compares stock vLLM with Holdfast on the real CPU engine, at two speeds.

python benchmarks/engine_sessions.py [--traces PATH] [--seeds N] [--output DIR]

Both run below and past the cliff. Each seed takes other sessions and swaps the order of the
engines. Writes one run document and one table a speed. Without --traces the sessions are generated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

# Replayed seconds per recorded second, and the longest recorded gap: so that a speed takes
# about half an hour.
SPEEDS = {"0.02": "60", "0.1": "30"}
LOAD = {
    "--concurrency": ("2", "16"),
    "--sessions": ("2", "16"),
    "--kv-tokens": ("24576",),
    "--max-model-len": ("9600",),
    "--token-scale": ("0.0625",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-scale", choices=list(SPEEDS), action="append")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    name = "generated" if options.traces is None else options.traces.name
    for time_scale in options.time_scale or SPEEDS:
        gap_cap_s = SPEEDS[time_scale]
        stem = options.output / f"engine-{name}-x{time_scale}"
        command = [sys.executable, "-m", "holdfast", "demo", "--time-scale", time_scale]
        command += ["--gap-cap-s", gap_cap_s]
        for option, values in LOAD.items():
            command += [option, *values]
        command += ["--seeds", str(options.seeds), "--json", f"{stem}.json"]
        stem.mkdir(exist_ok=True)
        command += ["--records", str(stem)]  # each turn, for simulator_truth.py
        if options.traces is not None:
            command += ["--traces", str(options.traces)]
        print("$ holdfast", *command[3:], flush=True)
        table = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(table)
        Path(f"{stem}.txt").write_text(table)


if __name__ == "__main__":
    main()
