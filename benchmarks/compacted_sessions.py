"""What compacted sessions save in the engine, beside what they cost.

python benchmarks/compacted_sessions.py [--sessions N] [--tokens N] [--shares 60,40,20]
                                        [--methods A,B] [--cache DIR] [--output DIR]

vLLM runs in this process, with the model of `token_level.py` in float32. A session is a generated
one of task `agent`: outputs of tools, then a second turn. Its first turn is computed, compacted and
dropped from the KV cache; then the session returns. One engine serves all methods and shares, and
one session at a time.

NLL is of texts that the session goes on with, token by token: the right answers to its questions,
and the first 16 tokens of its second turn. The engine computes no `prompt_logprobs` of a compacted
prompt. So the texts are forced as its answers, and NLL is by its own raw log-probabilities.
That of the second turn is computed in transformers too, with as many entries left by the method.

Seeds from 1000 on; no setting is chosen on these sessions. Rows are kept in
`compacted_sessions.jsonl` as they come, and a second run goes on from there. Writes
`compacted_sessions.json` (manifest, all sessions) and `compacted_sessions.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from compacted_engine import BLOCK, ENVIRONMENT, Engine, Tokens
from holdfast.compress.encoded import EncodedSample, encode_sample
from holdfast.compress.methods import find_method
from holdfast.compress.model_files import load_model
from holdfast.compress.session import Session
from holdfast.compress.tasks import make_sample
from holdfast.config import HoldfastConfig
from holdfast.report.manifest import run_manifest
from token_level import MEMBER, SHA256, fetched_model

METHODS: Final = "keydiff,streaming-llm,random,knorm"
FIRST_SEED, TASK, NUM_CONTINUED, NUM_FREE = 1000, "agent", 16, 8
NONE: Final = "\N{EN DASH}"


class Row(msgspec.Struct):
    """One session of one method and share.

    Attributes:
        method: What chose the entries; `full` and `recomputed` for the whole prefix.
        share: Entries that stay.
        seed: Of the session.
        num_tokens: Tokens of the prefix in whole blocks (count).
        num_kept: Entries of each KV head in its place (count).
        cache_bytes: Memory of the prefix in the KV cache.
        stored_bytes: Size of its file; 0 without one.
        store_s: Reading, choosing and turning, for which the engine step waits (s).
        write_s: Writing the file, by a thread (s).
        load_s: Reading the file and writing the KV cache (s).
        first_s: From the request to its first token as the session returns (s).
        entries: Entries that a head of a layer reads, over the steps of an answer (mean count).
        compacted_nll: Of right answers about the compacted turn (nats a token).
        later_nll: Of right answers about the second turn, which is whole (nats a token).
        continued_nll: Of the first tokens of the second turn (nats a token).
        num_exact: Answers that a greedy one equals, token by token (count).
        free: Greedy answers.
        reference_nll: As `continued_nll`, by transformers with as many entries (nats a token).
    """

    method: str
    share: float
    seed: int
    num_tokens: int
    num_kept: int
    cache_bytes: int
    stored_bytes: int
    store_s: float
    write_s: float
    load_s: float
    first_s: float
    entries: float
    compacted_nll: float
    later_nll: float
    continued_nll: float
    num_exact: int
    free: list[Tokens]
    reference_nll: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024, help="of a session's two turns")
    parser.add_argument("--shares", default="60,40,20", help="percent, with commas between")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--cache", type=Path, default=Path("out/models"))
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / "compacted_sessions.jsonl"
    rows = msgspec.json.Decoder(Row).decode_lines(log.read_bytes()) if log.exists() else []
    model = fetched_model(options.cache)
    reference = Reference(model)
    samples = sessions_of(reference.tokenizer, options.sessions, options.tokens)
    shares = [int(percent) / 100 for percent in options.shares.split(",")]
    cases = [("full", 1.0)] + [(m, share) for m in options.methods.split(",") for share in shares]
    done = {(row.method, row.share) for row in rows}
    by_seed = {sample.seed: sample for sample in samples}
    shutil.rmtree(options.output / "compactions", ignore_errors=True)
    engine = Engine(model, HoldfastConfig(compact_dir=str(options.output / "compactions")))
    engine.ask([[1, 2, 3]])  # the first step of an engine is slow
    for method, share in cases:
        if (method, share) in done:
            continue
        found = measured(engine, samples, method, share)
        for row in found:
            row.reference_nll = reference.continued_nll(by_seed[row.seed], row)
        with log.open("ab") as file:
            file.write(msgspec.json.Encoder().encode_lines(found))
        rows += found
        print(method, share, flush=True)
    engine.close()
    arguments = {"sessions": options.sessions, "tokens": options.tokens, "shares": shares}
    arguments |= {"methods": options.methods, "task": TASK, "first_seed": FIRST_SEED}
    manifest = run_manifest(arguments=arguments, runs=(), digests={MEMBER: SHA256})
    write(options.output, rows, manifest)


def write(output: Path, rows: list[Row], manifest: dict[str, Any]) -> None:
    """Write all rows and the table, and print it."""
    text = msgspec.json.format(msgspec.json.encode({"manifest": manifest, "rows": rows}), indent=1)
    (output / "compacted_sessions.json").write_bytes(text + b"\n")
    table = markdown(rows)
    (output / "compacted_sessions.md").write_text(table)
    print(table)


def sessions_of(tokenizer: Any, num_sessions: int, num_tokens: int) -> list[EncodedSample]:
    """Generated sessions as tokens."""
    seeds = range(FIRST_SEED, FIRST_SEED + num_sessions)

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    made = [make_sample(TASK, seed, num_tokens, count_tokens) for seed in seeds]
    return [encode_sample(tokenizer, sample) for sample in made]


def measured(
    engine: Engine, samples: Sequence[EncodedSample], method: str, share: float
) -> list[Row]:
    """All sessions with this method and share; of `full` also `recomputed`."""
    if method == "full":
        return [whole(engine, one, name) for one in samples for name in ("full", "recomputed")]
    engine.choose(method, share)
    return [compacted(engine, one, method, share) for one in samples]


def whole(engine: Engine, sample: EncodedSample, name: str) -> Row:
    """A session whose prefix is cached whole, or computed again."""
    prefix = list(sample.turns[0].tokens)
    engine.forget()
    if name == "full":
        engine.ask([prefix], compact=False)
    first_s = engine.first_token_s(prefix + questions(sample)[0][0], compact=False)
    num_tokens = len(prefix) // BLOCK * BLOCK
    return Row(
        method=name,
        share=1.0,
        seed=sample.seed,
        num_tokens=num_tokens,
        num_kept=num_tokens,
        cache_bytes=num_tokens * engine.bytes_per_token,
        stored_bytes=0,
        store_s=0.0,
        write_s=0.0,
        load_s=0.0,
        first_s=first_s,
        **answered(engine, sample, 0, compact=False),
    )


def compacted(engine: Engine, sample: EncodedSample, method: str, share: float) -> Row:
    """A session that is compacted after its first turn, dropped, and returns."""
    prefix = list(sample.turns[0].tokens)
    engine.forget()
    engine.ask([prefix], compact=True)
    stored = engine.stored(prefix)
    engine.drop_cached()
    first_s = engine.first_token_s(prefix + questions(sample)[0][0])
    return Row(
        method=method,
        share=share,
        seed=sample.seed,
        num_tokens=stored.header.num_tokens,
        num_kept=stored.header.num_kept,
        cache_bytes=stored.header.num_bytes_before,
        stored_bytes=stored.num_bytes,
        store_s=stored.header.seconds,
        write_s=engine.writes_s[-1],
        load_s=engine.loads_s[-1],
        first_s=first_s,
        **answered(engine, sample, stored.num_dropped),
    )


def questions(sample: EncodedSample) -> list[tuple[Tokens, Tokens]]:
    """Texts after the prefix: of questions about it twice, the second turn, its start."""
    first, second = sample.turns
    early, late = [(list(q.tokens), list(q.answer)) for q in second.questions]
    ((asked, answer),) = [(list(q.tokens), list(q.answer)) for q in first.questions]
    turn = list(second.tokens)
    return [
        (asked, answer),
        (turn + early[0], early[1]),
        (turn + late[0], late[1]),
        (turn[:1], turn[1 : NUM_CONTINUED + 1]),
    ]


def answered(
    engine: Engine, sample: EncodedSample, num_dropped: int, *, compact: bool | None = None
) -> dict[str, Any]:
    """What the session answers after its prefix, forced and free."""
    prefix, asked = list(sample.turns[0].tokens), questions(sample)
    forced = engine.forced([(prefix + text, answer) for text, answer in asked], compact=compact)
    for one in forced:
        if one.num_dropped != num_dropped:
            raise SystemExit(f"{one.num_dropped} tokens were dropped, expected {num_dropped}")
    free = engine.ask(
        [prefix + text for text, _ in asked[:3]], num_outputs=NUM_FREE, compact=compact
    )
    (at_once, early, late, continued) = (statistics.fmean(one.nlls) for one in forced)
    steps = [
        len(prefix) + len(text) - num_dropped + number
        for text, answer in asked[:3]
        for number in range(len(answer))
    ]
    return {
        "entries": statistics.fmean(steps),
        "compacted_nll": (at_once + early) / 2,
        "later_nll": late,
        "continued_nll": continued,
        "num_exact": sum(one.is_exact for one in forced[:3]),
        "free": [list(output.outputs[0].token_ids) for output in free],
    }


class Reference:
    """The same model in transformers, where `compress eval` computes NLL.

    Attributes:
        tokenizer: The model's.
    """

    def __init__(self, directory: Path) -> None:
        self._model, self.tokenizer = load_model(directory)
        self._prefixes: dict[int, Session] = {}

    def continued_nll(self, sample: EncodedSample, row: Row) -> float:
        """NLL of a second turn's first tokens, after a prefix with as many entries as a row's."""
        prefix = list(sample.turns[0].tokens)
        if sample.seed not in self._prefixes:
            self._prefixes[sample.seed] = Session(self._model)
            self._prefixes[sample.seed].append(prefix[: row.num_tokens])
        session = self._prefixes[sample.seed].fork()
        if row.num_kept < row.num_tokens:
            session.compact(find_method(row.method), row.num_kept / row.num_tokens)
        text, answer = questions(sample)[-1]
        tokens = [*prefix[row.num_tokens :], *text, *answer[:-1]]
        chances = session.ask(tokens, num_logits=len(answer)).log_softmax(-1).tolist()
        return -statistics.fmean(by[token] for by, token in zip(chances, answer, strict=True))


def markdown(rows: Sequence[Row]) -> str:
    """The table: means over sessions, in the order of the rows."""
    heads = [
        "prefix",
        "share kept",
        "stored (MiB)",
        "of the cache's bytes",
        "compact (ms)",
        "write (ms)",
        "load (ms)",
        "first token (ms)",
        "entries read a step",
        "NLL, compacted turn",
        "NLL, later turn",
        "NLL, continuation",
        "off transformers",
        "exact answers",
        "answers as of full",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    full = {row.seed: row.free for row in rows if row.method == "full"}
    cases = dict.fromkeys((row.method, row.share) for row in rows)
    for method, share in cases:
        own = [row for row in rows if (row.method, row.share) == (method, share)]
        lines.append(
            f"| {' | '.join([method, f'{share:.0%}'.replace('%', ' %'), *cells(own, full)])} |"
        )
    return "\n".join(lines) + "\n"


def cells(rows: Sequence[Row], full: dict[int, list[Tokens]]) -> list[str]:
    """Figures of the sessions of one method and share."""

    def mean(values: Iterable[float]) -> float:
        return statistics.fmean(values)

    def median_ms(values: Iterable[float]) -> str:
        return f"{statistics.median(values) * 1000:,.0f}"

    is_stored = any(row.stored_bytes for row in rows)
    equal = [
        answer == other
        for row in rows
        for answer, other in zip(row.free, full[row.seed], strict=True)
    ]
    return [
        f"{mean(row.stored_bytes for row in rows) / 2**20:.1f}" if is_stored else NONE,
        f"{mean(row.stored_bytes / row.cache_bytes for row in rows):.2f}" if is_stored else NONE,
        median_ms(row.store_s for row in rows) if is_stored else NONE,
        median_ms(row.write_s for row in rows) if is_stored else NONE,
        median_ms(row.load_s for row in rows) if is_stored else NONE,
        median_ms(row.first_s for row in rows),
        f"{mean(row.entries for row in rows):,.0f}",
        f"{mean(row.compacted_nll for row in rows):.2f}",
        f"{mean(row.later_nll for row in rows):.2f}",
        f"{mean(row.continued_nll for row in rows):.2f}",
        f"{max(abs(row.continued_nll - row.reference_nll) for row in rows):.4f}",
        f"{sum(row.num_exact for row in rows)} of {3 * len(rows)}",
        f"{sum(equal)} of {len(equal)}",
    ]


if __name__ == "__main__":
    main()
