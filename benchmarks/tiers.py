"""Simulates tiers below the KV cache, with stock vLLM, InferCept and Holdfast.

python benchmarks/tiers.py --traces PATH [--setup NAME] [--seeds N] [--jobs N] [--output DIR]

Tiers hold so many times what the KV cache holds. Stock vLLM offloads with its own connector and its
own LRU, which is a hierarchical cache without prediction; the others use the same connector.
`host`: ten sessions at once on one H100 with Llama-3.1-8B and host memory of several sizes. `disk`
and `link`: tokens, gaps and KV cache cut to a quarter, so that a run takes seconds, twelve sessions
at once until all have ended; a disk below host memory, also one of 1.5 GB/s, and links to host
memory that are as fast as computing the same KV (about 5 GB/s), half of that and an eightieth.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.sim.profile_file import load_profile
from simulated_table import WINDOW, Load, make_table, table_options, table_parser

H100 = "h100-llama3.1-8b"
QUARTER_TOKENS = 60_000
QUARTER = (
    *("--kv-tokens", str(QUARTER_TOKENS), "--block-size", "16", "--max-model-len", "24000"),
    *("--token-scale", "0.25", "--time-scale", "0.25", "--gap-cap-s", "120"),
    *("--concurrency", "12", "--sessions", "24"),
)
LINKS_GB_PER_S = {
    5.0: ("vllm-default", "holdfast", "clairvoyant"),
    2.5: ("vllm-default", "holdfast", "clairvoyant"),
    0.06: ("holdfast", "clairvoyant"),
}
"""Links and the policies to run; stock, which copies always, is left out on the slowest."""
ALONE = "return-rate+working-set"
"""Holdfast without prefetches of agents."""


def _host(times: int) -> Load:
    size = times * load_profile(H100).kv_tokens
    arguments = ("--profile", H100, "--concurrency", "10", *WINDOW, "--host-tokens", str(size))
    title = f"host memory {times} times the KV cache" if times else "no tier"
    policies = ("vllm-default", "infercept", "holdfast", "clairvoyant")
    return Load(f"host-{times}", arguments, policies, title)


def _quarter(
    name: str, title: str, policies: tuple[str, ...], sizes: tuple[int, int], profile: str
) -> Load:
    host, disk = (str(times * QUARTER_TOKENS) for times in sizes)
    tiers = ("--host-tokens", host, "--disk-tokens", disk)
    return Load(name, ("--profile", profile, *QUARTER, *tiers), policies, title)


def _changed(field: str, value: float, directory: Path) -> str:
    """File of the profile with one field changed."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{H100}-{field}-{value:g}.toml"
    path.write_text(msgspec.structs.replace(load_profile(H100), **{field: value}).to_toml())
    return str(path)


def _disk(directory: Path) -> tuple[Load, ...]:
    slow = _changed("disk_bytes_per_s", 1.5e9, directory)
    policies = ("vllm-default", ALONE, "holdfast", "clairvoyant-prefetch")
    return (
        _quarter("none", "no tier", ("vllm-default", "holdfast", "all-kept"), (0, 0), H100),
        _quarter("disk", "host 1 times, disk 10 times the cache", policies, (1, 10), H100),
        _quarter("slow", "the same with a disk of 1.5 GB/s", policies, (1, 10), slow),
    )


def _link(directory: Path) -> tuple[Load, ...]:
    loads = [_quarter("none", "no tier", ("vllm-default", "holdfast", "clairvoyant"), (0, 0), H100)]
    for speed, policies in LINKS_GB_PER_S.items():
        profile = _changed("host_link_bytes_per_s", speed * 1e9, directory)
        title = f"host memory 3 times the cache, {speed:g} GB/s"
        loads.append(_quarter(f"{speed:g}", title, policies, (3, 0), profile))
    return tuple(loads)


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--setup", choices=("host", "disk", "link"), default="host")
    parsed = parser.parse_args()
    options = table_options(parsed)
    profiles = options.output / "profiles"
    loads = {
        "host": lambda: tuple(map(_host, (0, 1, 3))),
        "disk": lambda: _disk(profiles),
        "link": lambda: _link(profiles),
    }
    make_table(f"tiers-{parsed.setup}-{options.traces_name}", loads[parsed.setup](), options)


if __name__ == "__main__":
    main()
