"""What `holdfast plan` goes by: traces, a study, or a running engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from holdfast.cli.plan_options import PlanArguments
from holdfast.cli.progress import progress_bar
from holdfast.cli.routes_token import routes_token
from holdfast.cli.traces_source import Skipped, TraceSource, Unread
from holdfast.core.capacity import ObservedEngine
from holdfast.errors import ConfigError
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.traces.io import FileReport
from holdfast.traces.record import Session, Turn
from holdfast.traces.selection import SessionSelection
from holdfast.workload.generator.families import iterate_families
from holdfast.workload.generator.files import fit_study
from holdfast.workload.study.turn_sample import TurnSample, TurnSampleMeter
from holdfast.workload.study.workload import SCHEMA as STUDY_SCHEMA

__all__ = ["PlanInput", "is_url", "read_input"]

DEFAULT_PROFILE: Final = "h100-llama3.1-8b"
_STUDY_MARK: Final = STUDY_SCHEMA.encode()
_MARK_WITHIN_BYTES: Final = 4096
_FAMILIES: Final = 200
_OBSERVED_BLOCK_TOKENS: Final = 16


class _Study(msgspec.Struct):
    """The fields of a study that a plan needs."""

    schema: str
    turns: TurnSample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """What a plan goes by.

    Attributes:
        source: "traces", "study" or "engine".
        sample: The turns.
        sessions: Makes sessions for simulated runs.
        profile: What the engine's work costs.
        kv_tokens: Size of the KV cache.
        host_tokens: Size of the host tier; 0 for none.
        digests: Of the files that were read, by name.
        warnings: What makes the figures less certain.
        observed: The engine, if it is one.
        check: Raises at the end if a file could not be read.
    """

    source: str
    sample: TurnSample
    sessions: Callable[[], Sequence[Session]]
    profile: CostProfile
    kv_tokens: int
    host_tokens: int
    digests: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    observed: ObservedEngine | None = None
    check: Callable[[], None] = lambda: None


def is_url(text: str) -> bool:
    """Whether an argument is the address of an engine. Pure."""
    return text.startswith(("http://", "https://"))


def read_input(arguments: PlanArguments, errors: Console) -> PlanInput:
    """Read what the arguments name; prints progress.

    Raises:
        TraceError: A file cannot be read.
        ConfigError: Kinds are mixed, or a study or an engine does not tell enough.
        EndpointError: An engine cannot be read.
    """
    urls = [one for one in arguments.paths if is_url(one)]
    if urls and len(arguments.paths) > 1:
        raise ConfigError(
            "an engine's address stands alone: a plan goes by one engine, one study, or traces",
            hint=f"holdfast plan {urls[0]}",
        )
    if urls:
        return _engine_input(urls[0], arguments, errors)
    paths = [Path(one) for one in arguments.paths]
    studies = [path for path in paths if _is_study(path)]
    if studies and len(paths) > 1:
        raise ConfigError(
            f"{studies[0]}: a study stands alone: a plan goes by one study, or by traces",
            hint=f"holdfast plan {studies[0]}",
        )
    if studies:
        return _study_input(studies[0], arguments)
    return _trace_input(paths, arguments, errors)


def _sized(arguments: PlanArguments, profile: CostProfile) -> tuple[int, int]:
    """Sizes of KV cache and host tier (tokens)."""
    host_tokens = int(arguments.host_gib * 2**30 / profile.kv_bytes_per_token)
    return arguments.kv_tokens or profile.kv_tokens, host_tokens


def _trace_input(paths: Sequence[Path], arguments: PlanArguments, errors: Console) -> PlanInput:
    profile = load_profile(arguments.profile_name or DEFAULT_PROFILE)
    reports: list[FileReport] = []
    skipped, unread = Skipped(errors), Unread(errors)
    source = TraceSource(
        tuple(paths),
        errors,
        skipped if arguments.lenient else None,
        on_file=[reports.append],
        on_unread=unread,
    )
    with source.sessions() as read:
        sessions = SessionSelection(gap_cap_s=arguments.gap_cap_s).select(read).sessions
    skipped.print_total()
    meter = TurnSampleMeter()
    for session in sessions:
        meter.add(session)
    kv_tokens, host_tokens = _sized(arguments, profile)
    return PlanInput(
        source="traces",
        sample=meter.result(),
        sessions=lambda: sessions,
        profile=profile,
        kv_tokens=kv_tokens,
        host_tokens=host_tokens,
        digests={report.name: report.sha256 for report in reports},
        check=unread.check,
    )


def _is_study(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return _STUDY_MARK in file.read(_MARK_WITHIN_BYTES)


def _study_input(path: Path, arguments: PlanArguments) -> PlanInput:
    """A study: its turns, and sessions like its own for simulated runs."""
    import hashlib

    content = path.read_bytes()
    try:
        sample = msgspec.json.decode(content, type=_Study).turns
        if sample is not None:
            sample.check()
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if sample is None:
        raise ConfigError(
            f"{path}: the study has no `turns`: it is from a version before plans went by studies",
            hint="make it again with holdfast traces study --json, or give the traces",
        )
    profile = load_profile(arguments.profile_name or DEFAULT_PROFILE)
    kv_tokens, host_tokens = _sized(arguments, profile)
    warnings = []
    if len(sample.column("session")) < sample.num_turns:
        warnings.append(
            f"The study has {len(sample.column('session')):,} of {sample.num_turns:,} turns, "
            "evenly over their gaps."
        )
    if arguments.simulate:
        warnings.append(
            "Simulated runs are of sessions generated from the study, whose own are not in it."
        )
    return PlanInput(
        source="study",
        sample=sample,
        sessions=lambda: _generated(path, arguments),
        profile=profile,
        kv_tokens=kv_tokens,
        host_tokens=host_tokens,
        digests={path.name: hashlib.sha256(content).hexdigest()},
        warnings=tuple(warnings),
    )


def _generated(path: Path, arguments: PlanArguments) -> Sequence[Session]:
    families = iterate_families(fit_study(path), arguments.seed, name="planned")
    drawn = chain.from_iterable(islice(families, _FAMILIES))
    return SessionSelection(gap_cap_s=arguments.gap_cap_s).select(drawn).sessions


def _engine_input(url: str, arguments: PlanArguments, errors: Console) -> PlanInput:
    from holdfast.bench.engine_turns import EngineTurns, measured_profile

    token = routes_token(arguments.token_path)
    if token is None:
        raise ConfigError(
            "a plan from an engine needs the sessions that its control routes tell; its metrics "
            "have sums only",
            hint="start it with --holdfast-token-file FILE and give --token-file FILE here, or "
            "with HOLDFAST_DECISION_LOG=FILE and plan from FILE",
        )
    watched = EngineTurns(url.rstrip("/"), token)
    with progress_bar(errors, "turns") as progress:
        task = progress.add_task("watching the engine", total=None)
        watched.watch(arguments.observe_s, lambda n: progress.update(task, completed=n))
    engine = watched.engine
    profile = measured_profile(watched.url, engine)
    if arguments.profile_name is not None:
        profile = load_profile(arguments.profile_name)
    sized = dataclasses.replace(arguments, kv_tokens=arguments.kv_tokens or engine.cache_tokens)
    kv_tokens, host_tokens = _sized(sized, profile)
    sample = watched.sample()
    return PlanInput(
        source="engine",
        sample=sample,
        sessions=lambda: _observed_sessions(sample),
        profile=profile,
        kv_tokens=kv_tokens,
        host_tokens=host_tokens or engine.host_tokens,
        warnings=_engine_warnings(
            arguments, watched.num_data_parallel, engine.host_load_s_per_token
        ),
        observed=watched.observed(arguments.observe_s),
    )


def _engine_warnings(
    arguments: PlanArguments, num_engines: int, load_s: float | None
) -> tuple[str, ...]:
    found = [
        "An engine tells the last four turns of each session, so turns of long sessions count too "
        "little; watch it with --observe, or plan from its decision log."
    ]
    if num_engines > 1:
        found.append(f"The turns are of {num_engines} data-parallel engines; the plan is of one.")
    if arguments.profile_name is None and arguments.host_gib and load_s is None:
        found.append(
            "The engine has loaded nothing from a host tier: 25 GB/s are assumed for its link."
        )
    if arguments.simulate:
        found.append(
            "Simulated runs are of the observed parts of sessions, each from a cold start."
        )
    return tuple(found)


def _observed_sessions(sample: TurnSample) -> Sequence[Session]:
    """Sessions with the lengths of observed turns; block ids are made up."""
    names = ("session", "prompt_tokens", "kept_tokens", "output_tokens", "gap_ms")
    columns = [sample.column(name).astype(int).tolist() for name in names]
    sessions: list[Session] = []
    turns: list[Turn] = []
    blocks: tuple[int, ...] = ()
    last, next_id = None, 0
    for number, prompt, kept, output, gap_ms in zip(*columns, strict=True):
        if number != last:
            _end_session(sessions, turns)
            turns, blocks, last = [], (), number
        num_blocks = prompt // _OBSERVED_BLOCK_TOKENS
        shared = blocks[: min(kept // _OBSERVED_BLOCK_TOKENS, num_blocks)]
        fresh = num_blocks - len(shared)
        blocks = (*shared, *range(next_id, next_id + fresh))
        next_id += fresh
        turns.append(Turn(gap_ms / 1e3, prompt, output, blocks))
    _end_session(sessions, turns)
    return sessions


def _end_session(sessions: list[Session], turns: list[Turn]) -> None:
    if turns:
        name = f"observed-{len(sessions)}"
        sessions.append(Session(name, _OBSERVED_BLOCK_TOKENS, tuple(turns), "engine"))
