"""Retention gates against the whole cache and other methods, where distractors dilute attention.

python benchmarks/retention_gates.py [--cache DIR] [--output DIR] [--validate]

The model has 345K parameters and is trained here, at up to 512 tokens, to answer questions among
facts and distractors (`tiny_lm`). Its attention thins out as contexts grow longer: the whole cache
loses answers. Gates are trained beside it at each served length, and then keep 64 entries a head on
average, evicting every 16 tokens. Answers of each sequence's second half count.

Fixed before the first run on test sequences: the model, mixes, lengths, the budget, the number of
sequences, seeds and methods. What is chosen, is chosen by `--validate` on validation sequences,
which are drawn with other seeds: constants of the training and the rows of `CHOICES`. Test
sequences have five seeds, and the first run on them counts.

Everything is done in steps that are not repeated: the model, the gates of each length, and each
answer's outcome, appended to `retention_gates.jsonl`. Writes `retention_gates.json` and `.md`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import Tensor

from holdfast.compress.gates.batch import Batch
from holdfast.compress.gates.checkpoint import TrainingRun
from holdfast.compress.gates.gate import RetentionGates, shape_for
from holdfast.compress.gates.gate_file import load_gates, model_digest
from holdfast.compress.gates.retention import RetentionRule
from holdfast.compress.gates.stream import RetentionStream
from holdfast.compress.gates.training_settings import TrainingSettings
from holdfast.compress.methods import find_method
from holdfast.compress.session import Session
from holdfast.report.manifest import run_manifest
from tiny_lm.facts import DILUTED, PLAIN, make_facts
from tiny_lm.training import answers_of, new_model, train_model

MODEL_SEED: Final = 0
CAPACITY, CHUNK = 64, 16
LENGTHS: Final = (512, 1024, 2048)
MIXES: Final = {"plain": PLAIN, "diluted": DILUTED}
CONDITIONS: Final = (("plain", 512), *(("diluted", length) for length in LENGTHS))
SET_TOKENS: Final = 8192
"""Tokens of the sequences of a seed, in each condition."""
VALIDATION_SEEDS: Final = (100,)
TEST_SEEDS: Final = (200, 201, 202, 203, 204)

TRAINING: Final = {
    512: TrainingSettings(capacity=6, num_steps=120, learning_rate=4e-3),
    1024: TrainingSettings(capacity=6, num_steps=50, learning_rate=3e-3),
    2048: TrainingSettings(capacity=6, num_steps=30, learning_rate=2e-3),
}
"""By length; each goes on from the gates of the length before."""
STEP_TOKENS: Final = 4096

METHODS: Final = ("full", "gates", "streaming-llm", "snapkv", "random")
CHOICES: Final = {
    "gates": ("min_entries=0", "min_entries=8"),
    "snapkv": ("snapkv:window=8", "snapkv:window=16", "snapkv:window=32"),
}
"""What the validation sequences choose from."""


class Score(msgspec.Struct, frozen=True):
    """Answers of one method in one condition and seed; the counts are of answers."""

    seed: int
    mix: str
    num_tokens: int
    method: str
    num_right: int
    num_answers: int
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=Path("out/models"))
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("--validate", action="store_true", help="validation sequences alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    model = trained_model(options.cache)
    gates = {length: trained_gates(model, length, options.cache) for length in LENGTHS}
    log = options.output / "retention_gates.jsonl"
    scores = _logged(log)
    known = {(s.seed, s.mix, s.num_tokens, s.method) for s in scores}
    for seed, condition, method in _cells(scores, is_test=not options.validate):
        if (seed, *condition, method) not in known:
            score = scored(model, gates, method, condition, seed)
            with log.open("ab") as file:
                file.write(msgspec.json.encode(score) + b"\n")
            scores.append(score)
            print(score, flush=True)
    if not options.validate:
        write(options.output, scores, _manifest(model))


def trained_model(cache: Path) -> Any:
    """The model, trained where it is not there yet."""
    from transformers import LlamaForCausalLM

    folder = cache / f"tiny-lm-{MODEL_SEED}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        model = new_model(MODEL_SEED)
        train_model(model, MODEL_SEED, folder.with_suffix(".checkpoint"))
        model.save_pretrained(folder.with_suffix(".unfinished"))
        folder.with_suffix(".unfinished").rename(folder)
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def trained_gates(model: Any, num_tokens: int, cache: Path) -> RetentionGates:
    """Gates of a length, trained where they are not there yet, after those of the length before."""
    path = cache / f"tiny-lm-{MODEL_SEED}-gates-{num_tokens}.safetensors"
    if not path.exists():
        at = LENGTHS.index(num_tokens)
        initial = trained_gates(model, LENGTHS[at - 1], cache) if at else None
        settings = TRAINING[num_tokens]
        shape = shape_for(model.config, "rg10", hidden_size=128, initial_bias=6.0)
        batches = list(_training_batches(num_tokens, settings.num_steps))
        run = TrainingRun(model, shape, settings, batches, path, initial=initial)
        start = time.process_time()
        for losses in run.run(save_every=10):
            if run.num_steps % 10 == 0:
                print(num_tokens, run.num_steps, losses, flush=True)
        print(f"gates {num_tokens}: {time.process_time() - start:.0f} CPU seconds", flush=True)
    return load_gates(path, model)


def _training_batches(num_tokens: int, num_batches: int) -> Iterator[Batch]:
    """Of each mix in turn."""
    mixes = list(MIXES.values())
    for index in range(num_batches):
        mix = mixes[index % len(mixes)]
        seed = (MODEL_SEED, num_tokens, index)
        yield Batch(*make_facts(mix, num_tokens, STEP_TOKENS // num_tokens, seed))


def _cells(scores: list[Score], *, is_test: bool) -> Iterator[tuple[int, tuple[str, int], str]]:
    """Seed, condition and method of each cell; on test sequences with what validation chose."""
    if not is_test:
        for seed in VALIDATION_SEEDS:
            for condition in CONDITIONS:
                yield seed, condition, "full"
                for method in CHOICES["snapkv"]:
                    yield seed, condition, method
                for trained in LENGTHS:
                    for setting in CHOICES["gates"]:
                        yield seed, condition, f"gates:trained={trained}:{setting}"
        return
    for method in METHODS:
        for seed in TEST_SEEDS:
            for condition in CONDITIONS:
                yield seed, condition, chosen(scores, method, condition)


def chosen(scores: list[Score], method: str, condition: tuple[str, int]) -> str:
    """The method with the settings that have most right answers on the validation sequences.

    The first of equal ones. Gates are always those trained at the served length.
    """
    choices = [
        f"gates:trained={condition[1]}:{choice}" if method == "gates" else choice
        for choice in CHOICES.get(method, (method,))
    ]
    if len(choices) == 1:
        return choices[0]
    right = {
        score.method: score.num_right
        for score in scores
        if score.seed in VALIDATION_SEEDS and (score.mix, score.num_tokens) == condition
    }
    if not right:
        sys.exit("run with --validate first")
    return max(choices, key=lambda choice: right[choice])


def scored(
    model: Any,
    gates: dict[int, RetentionGates],
    method: str,
    condition: tuple[str, int],
    seed: int,
) -> Score:
    """Answer one set of sequences with one method."""
    mix, num_tokens = condition
    batch = SET_TOKENS // num_tokens
    tokens, labels = make_facts(MIXES[mix], num_tokens, batch, (seed, num_tokens))
    labels[:, : num_tokens // 2] = -100
    start = time.process_time()
    with torch.no_grad():
        if method == "full":
            logits, answers = answers_of(model, tokens, labels)
            right = logits.argmax(-1) == answers
        else:
            asked = labels[:, 1:] != -100
            logits = _streamed(model, gates, method, tokens)[:, :-1]
            right = logits[asked].argmax(-1) == labels[:, 1:][asked]
    spent_s = time.process_time() - start
    return Score(seed, mix, num_tokens, method, int(right.sum()), len(right), round(spent_s, 2))


def _streamed(model: Any, gates: dict[int, RetentionGates], method: str, tokens: Tensor) -> Tensor:
    """Logits (B, T, vocabulary) while entries are evicted after every chunk."""
    if method.startswith("gates"):
        _, trained, setting = method.split(":")
        min_entries = int(setting.partition("=")[2])
        rule = RetentionRule(capacity=CAPACITY, min_entries=min_entries)
        own = gates[int(trained.partition("=")[2])]
        stream = RetentionStream(model, own, rule, batch_size=len(tokens))
        return torch.cat([stream.append(chunk) for chunk in tokens.split(CHUNK, dim=1)], dim=1)
    evicts = find_method(method)
    rows = []
    for sequence in tokens.tolist():
        session, logits = Session(model), []
        for begin in range(0, len(sequence), CHUNK):
            chunk = sequence[begin : begin + CHUNK]
            logits.append(session.append(chunk, num_logits=len(chunk)))
            if session.num_tokens > CAPACITY:
                session.compact(evicts, CAPACITY / session.num_tokens)
        rows.append(torch.cat(logits))
    return torch.stack(rows)


def _logged(log: Path) -> list[Score]:
    """Scores of an earlier run."""
    return msgspec.json.Decoder(Score).decode_lines(log.read_bytes()) if log.exists() else []


def _manifest(model: Any) -> dict[str, Any]:
    arguments = {
        "model_seed": MODEL_SEED,
        "capacity": CAPACITY,
        "chunk": CHUNK,
        "conditions": CONDITIONS,
        "set_tokens": SET_TOKENS,
        "validation_seeds": VALIDATION_SEEDS,
        "test_seeds": TEST_SEEDS,
        "training": {str(length): settings for length, settings in TRAINING.items()},
        "choices": CHOICES,
        "mixes": {name: repr(mix) for name, mix in MIXES.items()},
    }
    plain = msgspec.to_builtins(arguments)
    return run_manifest(arguments=plain, runs=(), digests={"model": model_digest(model)})


def write(output: Path, scores: list[Score], manifest: dict[str, Any]) -> None:
    """Write all scores, and the table of test sequences with that of the choices below."""
    document = {"manifest": manifest, "scores": scores}
    text = msgspec.json.format(msgspec.json.encode(document), indent=1)
    (output / "retention_gates.json").write_bytes(text + b"\n")
    table = _table([s for s in scores if s.seed in TEST_SEEDS], by_name=False)
    choices = _table([s for s in scores if s.seed in VALIDATION_SEEDS], by_name=True)
    (output / "retention_gates.md").write_text(f"{table}\nValidation sequences:\n\n{choices}")
    print(table)


def _table(scores: list[Score], *, by_name: bool) -> str:
    """Right answers in percent: mean over seeds, and the lowest and highest of several."""
    cells: dict[str, dict[tuple[str, int], list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        name = score.method if by_name else score.method.partition(":")[0]
        cells[name][score.mix, score.num_tokens].append(score)
    heading = " | ".join(f"{mix}, {length:,}" for mix, length in CONDITIONS)
    lines = [f"| method | {heading} |", "|---|" + "---:|" * len(CONDITIONS)]
    for name, found in cells.items():
        columns = [_percent(found[condition]) for condition in CONDITIONS]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    asked = [_asked(next(iter(cells.values()))[condition]) for condition in CONDITIONS]
    lines.append(f"| answers | {' | '.join(asked)} |")
    return "\n".join(lines) + "\n"


def _percent(scores: list[Score]) -> str:
    shares = [100 * score.num_right / score.num_answers for score in scores]
    if len(shares) == 1:
        return f"{shares[0]:.1f}"
    return f"{statistics.fmean(shares):.1f} ({min(shares):.1f} to {max(shares):.1f})"


def _asked(scores: list[Score]) -> str:
    return f"{sum(score.num_answers for score in scores):,}"


if __name__ == "__main__":
    main()
