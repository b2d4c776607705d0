"""Compares policies in the simulator, under rising load and on the set-ups that papers used.

python benchmarks/policies.py --traces PATH [--setup NAME ...] [--seeds N] [--jobs N] [--output DIR]

`overcommit`: every policy, ten sessions at once on one H100 with Llama-3.1-8B, whether or not
applications say when sessions end. `sweep-h100` and `sweep-h200`: from half of what the cache holds
to several times as much, on that H100 and on 2x H200 with Qwen2.5-Coder-32B. `cachewise`: that
paper's method, N sessions started together on 2x H200, chunks of 512, until all have ended.
"""

from __future__ import annotations

from holdfast.policies.registry import policy_names
from simulated_table import LIMITS, WINDOW, Load, make_table, table_options, table_parser

H100, H200 = "h100-llama3.1-8b", "2xh200-qwen2.5-coder-32b"
GATES = (
    "thunderagent:acting_half_life_s=inf",
    "thunderagent:idle_lease_s=1800",
    "llm-d-thunderagent:starvation_s=30",
)
"""Gates with the settings that were released or measured; docs/baselines.md says where."""
ADMITTING = ("cachewise", "continuum", "thunderagent", "llm-d-thunderagent", *GATES)
SWEPT = ("vllm-default", "cachewise", "thunderagent", "holdfast", "clairvoyant")


def _overcommit() -> tuple[Load, ...]:
    every = (*policy_names(), *GATES)
    few = ("vllm-default", *ADMITTING, "holdfast", "clairvoyant")
    return (_window(H100, 10, every), _window(H100, 10, few, ends="known"))


def _window(
    profile: str, concurrency: int, policies: tuple[str, ...], ends: str = "unknown"
) -> Load:
    arguments = ("--profile", profile, "--concurrency", str(concurrency), *WINDOW)
    return Load(f"{concurrency}-{ends}", (*arguments, "--session-ends", ends), policies)


def _together(num_sessions: int) -> Load:
    size = ("--concurrency", str(num_sessions), "--sessions", str(num_sessions))
    policies = ("vllm-default", "cachewise", "holdfast", "clairvoyant")
    return Load(str(num_sessions), ("--profile", H200, *size, *LIMITS), policies)


SETUPS = {
    "overcommit": _overcommit(),
    "sweep-h100": tuple(_window(H100, number, SWEPT) for number in (2, 5, 10, 20, 40)),
    "sweep-h200": tuple(_window(H200, number, SWEPT) for number in (5, 10, 20, 40)),
    "cachewise": tuple(map(_together, (5, 10, 20, 40))),
}


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--setup", choices=list(SETUPS), action="append")
    parsed = parser.parse_args()
    options = table_options(parsed)
    for name in parsed.setup or ["overcommit"]:
        make_table(f"policies-{name}-{options.traces_name}", SETUPS[name], options)


if __name__ == "__main__":
    main()
