"""Compares rules that know the future, to find a bound that no policy beats.

python benchmarks/rule_search.py --traces PATH [--loads NAME,...] [--seeds N] [--output DIR]

Runs every rule, and the policies that did best past the cliff, where the sessions live at once need
two to four times the cache. `clairvoyant` of `holdfast simulate` is a search over those that ever
win here; a rule or a policy that beats all of its variants belongs into it.
"""

from __future__ import annotations

from simulated_table import LIMITS, WINDOW, Load, make_table, table_options, table_parser

H100, H200 = "h100-llama3.1-8b", "2xh200-qwen2.5-coder-32b"
RULES = (
    "clairvoyant",
    "shortest-remaining",
    "true-reservations",
    "true-reservations:hold_s=inf",
    "true-reservations:order=remaining",
    "true-reservations:hold_s=20:order=remaining",
    "cachewise-oracle+working-set",
)
POLICIES = ("vllm-default", "cachewise", "continuum", "llm-d-thunderagent", "holdfast")
EVERY = (*POLICIES, *RULES)
LOADS = (
    Load("h100-20", ("--profile", H100, "--concurrency", "20", *WINDOW), EVERY, "one H100"),
    Load(
        "h100-10-of-20",
        ("--profile", H100, "--concurrency", "10", "--sessions", "20", *LIMITS),
        EVERY,
        "one H100, whole runs",
    ),
    Load("h200-20", ("--profile", H200, "--concurrency", "20", *WINDOW), EVERY, "two H200"),
)


def main() -> None:
    options = table_options(table_parser(__doc__).parse_args())
    make_table(f"rule_search-{options.traces_name}", LOADS, options)


if __name__ == "__main__":
    main()
