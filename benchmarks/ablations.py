"""Simulates products of Holdfast's parts, and Holdfast with single settings changed.

python benchmarks/ablations.py --traces PATH [--seeds N] [--jobs N] [--output DIR]

Ten sessions at once on one H100 with Llama-3.1-8B. `return-rate` is the order of eviction alone,
`working-set` the admission alone, and other people's orders of eviction stand beside the same
admission.
"""

from __future__ import annotations

from simulated_table import WINDOW, Load, Variant, make_table, table_options, table_parser

POLICIES = (
    "vllm-default",
    "return-rate",
    "working-set",
    "return-rate+working-set",
    "cachewise+working-set",
    "saga+working-set",
    "return-rate+thunderagent",
    "holdfast",
    Variant("holdfast, guard off", "holdfast", {"predictions": "always"}),
    Variant("holdfast, no predictions", "holdfast", {"predictions": "never"}),
    Variant("holdfast, max_wait_ratio 0.5", "holdfast", {"max_wait_ratio": 0.5}),
    "clairvoyant",
)
LOAD = ("--profile", "h100-llama3.1-8b", "--concurrency", "10", *WINDOW)


def main() -> None:
    options = table_options(table_parser(__doc__).parse_args())
    loads = (Load("10", LOAD, POLICIES),)
    make_table(f"ablations-{options.traces_name}", loads, options)


if __name__ == "__main__":
    main()
