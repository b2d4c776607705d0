"""The findings of a workload study for an operator: one sentence a section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.workload.study.distribution import Distribution
from holdfast.workload.study.load import HOLD_S, Load
from holdfast.workload.study.workload import Study

__all__ = ["FINDINGS", "format_gib", "format_seconds", "format_share", "format_tokens"]

_KEPT_SHARE = 0.95
_MOST_PERCENT = 95
_SMALL_SHARE = 0.01


def format_tokens(num_tokens: float | None) -> str:
    """A number of tokens as text: three digits and a unit. Pure."""
    if num_tokens is None:
        return "\u2013"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(num_tokens) >= 0.9995 * limit:
            return f"{num_tokens / limit:.3g} {unit}"
    return f"{num_tokens:.0f}"


def format_gib(size: float) -> str:
    """A size in GiB as text: three digits, or all before the point. Pure."""
    return f"{size:,.0f} GiB" if size >= 100 else f"{size:.3g} GiB"


def format_seconds(seconds: float | None) -> str:
    """A time as text, in the largest unit of which it has at least two. Pure."""
    if seconds is None:
        return "\u2013"
    for limit, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * limit:
            return f"{seconds / limit:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def format_share(share: float | None) -> str:
    """A share of one as a percentage; None is unknown. Pure."""
    if share is None:
        return "\u2013"
    percent = 100 * share
    return f"{percent:.1f} %" if 0 < percent < 10 or 99 < percent < 100 else f"{percent:.0f} %"


def _shape(study: Study) -> str:
    shape = study.shape
    return (
        f"At the median a session takes {_turns(_at(shape.num_turns_each, 50))} and a prompt is "
        f"{format_tokens(_at(shape.prompt_tokens, 50))} tokens long{_without_reuse(study)}."
    )


def _turns(number: float) -> str:
    return "1 turn" if number == 1 else f"{number:.0f} turns"


def _without_reuse(study: Study) -> str:
    outputs = [each for each in study.shape.output_tokens.values() if each.mean is not None]
    num_output = sum(each.num_values * (each.mean or 0.0) for each in outputs)
    engine = study.engine
    answers_s = num_output * engine.output_s_per_token
    if not answers_s:
        return ""
    per_output = study.prefixes.prompt_tokens / num_output
    ratio = study.prefixes.prompt_tokens * engine.prompt_s_per_token / answers_s
    return (
        f", with {per_output:,.0f} prompt tokens for each answer token: without reuse "
        f"{engine.name} would compute a session's prompts for {ratio:.2g} times as long as it "
        "writes its answers"
    )


def _prefixes(study: Study) -> str:
    prefixes = study.prefixes
    total = max(1, prefixes.prompt_tokens)
    repeated = 1 - prefixes.new_tokens / total
    times = total / max(1, prefixes.new_tokens)
    return (
        f"{format_share(repeated)} of all prompt tokens had been sent before, "
        f"{format_share(prefixes.own_tokens / total)} by the session itself: without any reuse the "
        f"engine would compute {times:.3g} times the prompt tokens that are new."
    )


def _waits(study: Study) -> str:
    waits = study.waits
    if waits.all.idle_token_s <= 0:
        return "No session is recorded to wait between turns, so nothing is known about idle KV."
    owner, wait = next(iter(waits.by_kind.items()))
    return (
        f"{format_share(waits.all.long_share)} of the waits last over a minute and make up "
        f"{format_share(waits.all.long_idle_share)} of the token-seconds that KV lies idle; "
        f"{_name(owner)} own {format_share(wait.idle_token_s / waits.all.idle_token_s)} of them "
        f"with {format_share(wait.num_waits / waits.all.num_waits)} of the waits: how long KV is "
        "kept through these decides what keeping it costs."
    )


def _name(kind: str) -> str:
    names = {
        "human": "waits for a human",
        "unknown": "waits for something not recorded",
        "tool": "waits for tools",
        "sub_agent": "waits for sub-agents",
        "ask_user": "questions to the user",
    }
    return names.get(kind, f"waits for {kind} tools")


def _tools(study: Study) -> str:
    kind, time = next(iter(study.tools_by_kind.items()))
    total_s = sum(each.total_s for each in study.tools_by_kind.values())
    if not total_s:
        return "Every recorded tool call returns at once: no KV lies idle for tools."
    most_s = format_seconds(_at(time.duration_s, _MOST_PERCENT))
    return (
        f"Tools of the kind {kind} take {format_share(time.total_s / total_s)} of all tool time; "
        f"half of their calls return within {format_seconds(_at(time.duration_s, 50))} and "
        f"{_MOST_PERCENT} % within {most_s}, and calls of over a minute make up "
        f"{format_share(time.long_time_share)} of that time: KV held for {most_s} is there when "
        f"{_MOST_PERCENT} % of these calls return, and idles for the others."
    )


def _holding(study: Study) -> str:
    load = _typical(study)
    if load.holding is None:
        return "Nothing is ever reused, so holding KV keeps nothing."
    shares = load.holding.kept_share
    enough = next(
        (t for t, share in zip(HOLD_S, shares, strict=True) if share >= _KEPT_SHARE), None
    )
    after_minute = load.holding.kept_share[_index_of(60.0)]
    tail = (
        "no time of up to a day keeps 95 %"
        if enough is None
        else f"95 % needs {format_seconds(enough)} and holds "
        f"{format_tokens(load.holding.held_tokens[HOLD_S.index(enough)])} idle tokens on average, "
        f"of the {format_tokens(study.engine.kv_tokens)} that fit in {study.engine.name}"
    )
    return (
        f"With {_at_once(load)}, holding KV for a minute after its last use keeps "
        f"{format_share(after_minute)} of what is reused; {tail}."
    )


def _index_of(seconds: float) -> int:
    return max(index for index, time in enumerate(HOLD_S) if time <= seconds * 1.0001)


def _working_set(study: Study) -> str:
    load = _typical(study)
    median = _at(load.working_set.tokens, 50)
    engine = study.engine
    ratio = median / engine.kv_tokens
    return (
        f"With {_at_once(load)}, contexts come to {format_tokens(median)} tokens or more half of "
        f"the time ({format_gib(engine.gib(median))} of KV), {ratio:.2g} times what fits in "
        f"{engine.name}: {_fits(study)}."
    )


def _fits(study: Study) -> str:
    fitting = [
        load for load in study.loads if _at(load.working_set.tokens, 95) <= study.engine.kv_tokens
    ]
    if not fitting:
        return "no load studied fits 95 % of the time"
    if fitting[-1].concurrency is None:
        return "they fit 95 % of the time"
    return f"{_at_once(fitting[-1])} is the largest load studied that fits 95 % of the time"


def _cache(study: Study) -> str:
    load = _typical(study)
    if load.cliff is None:
        return "Nothing is ever reused, so the size of the cache makes no difference."
    engine = study.engine
    return (
        f"With {_at_once(load)} the hit ratio falls once an LRU cache is smaller than "
        f"{_sized(study, load.cliff.edge_tokens)}{_if_overloaded(study)}; the "
        f"{format_tokens(engine.kv_tokens)} of {engine.name} give "
        f"{load.hit_ratio(engine.kv_tokens):.2f}{_hit_if_overloaded(study)} of at most "
        f"{load.cliff.best_hit_ratio:.2f}."
    )


def _if_overloaded(study: Study) -> str:
    busy = _busy(study)
    if busy is None or busy.cliff is None:
        return ""
    edge = _sized(study, busy.cliff.edge_tokens)
    return f" on an engine that keeps up, and than {edge} on an overloaded one"


def _hit_if_overloaded(study: Study) -> str:
    busy = _busy(study)
    return "" if busy is None else f" and {busy.hit_ratio(study.engine.kv_tokens):.2f}"


def _sized(study: Study, num_tokens: float) -> str:
    return f"{format_tokens(num_tokens)} tokens ({format_gib(study.engine.gib(num_tokens))})"


def _mutations(study: Study) -> str:
    mutations = study.mutations
    num = sum(mutations.num_by_kind.values())
    if mutations.num_turns == 0:
        return "Every session is a single turn, so nothing is known about rewritten prompts."
    if num == 0:
        return "Every prompt extends the one before it: no reuse is lost to rewriting."
    share = mutations.recompute_tokens / max(1, mutations.prompt_tokens)
    by_kind = mutations.recompute_tokens_by_kind
    worst = max(by_kind, key=lambda kind: by_kind[kind])
    verdict = (
        "rewriting costs next to nothing"
        if share < _SMALL_SHARE
        else f"most of it is of the kind \u201c{worst}\u201d, which no cache can avoid"
    )
    return (
        f"{format_share(num / mutations.num_turns)} of the turns do not extend the prompt before "
        f"them, and have {format_share(share)} of all prompt tokens computed again that an "
        f"append-only prompt would have reused: {verdict}."
    )


def _fan_out(study: Study) -> str:
    fan_out = study.fan_out
    if fan_out.num_subagents == 0:
        return "No sub-agents are recorded."
    wait = fan_out.parent_gap_s.median
    waited = "" if wait is None else f"; their parents wait {format_seconds(wait)} at the median"
    return (
        f"{fan_out.num_subagents:,} of {study.shape.num_sessions:,} sessions are sub-agents, with "
        f"prompts of up to {format_tokens(_at(fan_out.peak_prompt_tokens, 50))} tokens at the "
        f"median{waited}: a parent's KV lies idle that long."
    )


def _typical(study: Study) -> Load:
    """The load in the middle, which the sentences are about."""
    return study.loads[len(study.loads) // 2]


def _busy(study: Study) -> Load | None:
    """The same load on an overloaded engine."""
    concurrency = _typical(study).concurrency
    return next((load for load in study.busy_loads if load.concurrency == concurrency), None)


def _at_once(load: Load) -> str:
    if load.concurrency is None:
        return "sessions as they arrived"
    return f"{load.concurrency} session{'s' * (load.concurrency != 1)} at once"


def _at(distribution: Distribution, percent: float) -> float:
    return distribution.at(percent) if distribution.percentiles else 0.0


FINDINGS: Final[dict[str, Callable[[Study], str]]] = {
    "shape": _shape,
    "prefixes": _prefixes,
    "waits": _waits,
    "tools": _tools,
    "holding": _holding,
    "working_set": _working_set,
    "cache": _cache,
    "mutations": _mutations,
    "fan_out": _fan_out,
}
"""By section; `tools` only for a study with recorded tool calls."""
