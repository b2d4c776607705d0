"""Entries that Holdfast's methods keep against those of kvpress, one by one.

python benchmarks/kvpress_keep_sets.py [--venv DIR] [--output DIR]

Makes a virtual environment with the versions below, 1.4 GB, where DIR has none, and runs both
sides in it: kvpress needs a transformers that vLLM refuses. Random models of two layers, Llama and
Qwen3, three seeds, prompts of 200 and 333 tokens, a window of 32 and pooling over 5 on both sides.
Writes `kvpress_keep_sets.json` and `.md`; ends with an error where a set differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

PINS = (
    *("kvpress==0.5.5", "transformers==5.2.0", "torch==2.13.0", "tokenizers==0.22.2"),
    *("numpy==2.4.6", "accelerate==1.15.0", "datasets==5.2.0", "peft==0.21.2"),
    *("huggingface_hub==1.33.0", "msgspec==0.21.1"),
)
FAMILIES, SEEDS, LENGTHS = ("Llama", "Qwen3"), (0, 1, 2), (200, 333)
REMOVED_SHARES = (0.25, 0.5, 0.75)
METHODS = ("snapkv", "criticalkv", "adakv", "critical-adakv")
WINDOW, KERNEL = 32, 5
SOURCES = Path(__file__).resolve().parents[1] / "src"

Sets = list[list[list[int]]]
"""Positions of kept entries, by layer and KV head."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--venv", type=Path, default=Path("out/kvpress"))
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        compare(options.output)
        return
    python = options.venv / "bin" / "python"
    if not python.exists():
        venv.create(options.venv, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
    command = [python, __file__, "--inside", "--output", options.output]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(SOURCES)})


def compare(output: Path) -> None:
    """Compare all cases in this process, and write what was found."""
    rows = list(_rows())
    versions = {name: version(name) for name in ("kvpress", "transformers", "torch", "numpy")}
    output.mkdir(parents=True, exist_ok=True)
    document = {
        "manifest": {
            "versions": {"python": sys.version.split()[0], **versions},
            "seeds": list(SEEDS),
            "arguments": {"window": WINDOW, "kernel": KERNEL, "lengths": list(LENGTHS)},
        },
        "rows": rows,
    }
    (output / "kvpress_keep_sets.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = ["| method | cases | entries kept | differing entries |", "|---|---:|---:|---:|"]
    for name in METHODS:
        cases = [row for row in rows if row["method"] == name]
        kept = sum(row["num_kept"] for row in cases)
        differing = sum(row["num_differing"] for row in cases)
        lines.append(f"| `{name}` | {len(cases)} | {kept:,} | {differing} |")
    table = "\n".join(lines) + "\n"
    (output / "kvpress_keep_sets.md").write_text(table)
    print(table)
    if any(row["num_differing"] for row in rows):
        sys.exit("keep sets differ")


def _rows() -> Iterator[dict[str, Any]]:
    for family in FAMILIES:
        for seed in SEEDS:
            for length in LENGTHS:
                model, tokens = _model(family, seed), _tokens(seed, length)
                for removed in REMOVED_SHARES:
                    for name in METHODS:
                        theirs = _kvpress(model, tokens, name, removed)
                        ours = _holdfast(model, tokens, name, 1 - removed)
                        yield {
                            "model": family,
                            "seed": seed,
                            "num_tokens": length,
                            "removed_share": removed,
                            "method": name,
                            "num_kept": sum(len(head) for layer in ours for head in layer),
                            "num_differing": _num_differing(ours, theirs),
                        }


def _num_differing(left: Sets, right: Sets) -> int:
    """Entries that one side keeps and the other does not."""
    return sum(
        len(set(ours) ^ set(theirs))
        for layers in zip(left, right, strict=True)
        for ours, theirs in zip(*layers, strict=True)
    )


def _model(family: str, seed: int) -> Any:
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        head_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def _tokens(seed: int, length: int) -> list[int]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(0, 512, (length,), generator=generator).tolist()
    return ids


def _holdfast(model: Any, tokens: list[int], name: str, share: float) -> Sets:
    from holdfast.compress.budget import Budget
    from holdfast.compress.methods import find_method
    from holdfast.compress.session import Session

    session = Session(model)
    session.append(tokens)
    method = find_method(f"{name}:window={WINDOW}:kernel={KERNEL}")
    kept = method.keep(session.cached_layers(), Budget(share, len(tokens)))
    return [[head.nonzero()[:, 0].tolist() for head in layer] for layer in kept]


def _kvpress(model: Any, tokens: list[int], name: str, removed_share: float) -> Sets:
    import torch
    from kvpress import AdaKVPress, CriticalAdaKVPress, CriticalKVPress, SnapKVPress
    from transformers import DynamicCache

    snap = SnapKVPress(removed_share, window_size=WINDOW, kernel_size=KERNEL)
    press = {
        "snapkv": lambda: snap,
        "criticalkv": lambda: CriticalKVPress(snap),
        "adakv": lambda: AdaKVPress(snap),
        "critical-adakv": lambda: CriticalAdaKVPress(snap),
    }[name]()
    ids = torch.tensor([tokens])
    whole, pressed = DynamicCache(), DynamicCache()
    with torch.no_grad():
        model.model(ids, past_key_values=whole)
        with press(model):
            model.model(ids, past_key_values=pressed)
    found: Sets = []
    for index, layer in enumerate(model.model.layers):
        masked = getattr(layer.self_attn, "masked_key_indices", None)
        layer.self_attn.masked_key_indices = None
        keys, kept = whole.layers[index].keys[0], pressed.layers[index].keys[0]
        if masked is None:
            found.append([_positions(*pair) for pair in zip(keys, kept, strict=True)])
        else:
            left = torch.ones(keys.shape[:2], dtype=torch.bool)
            left[masked[1], masked[2]] = False
            found.append([head.nonzero()[:, 0].tolist() for head in left])
    return found


def _positions(keys: Any, kept: Any) -> list[int]:
    """Where each kept key (m, d) stands among all keys (n, d)."""
    found: list[int] = (kept[:, None] == keys[None]).all(-1).int().argmax(-1).tolist()
    return found


if __name__ == "__main__":
    main()
