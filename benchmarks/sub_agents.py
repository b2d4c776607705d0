"""Simulates trees of agents whose parents wait for five sub-agents at once.

python benchmarks/sub_agents.py --traces PATH [--seeds N] [--jobs N] [--output DIR]

Sub-agents are grafted into the long pauses of recorded sessions, five into each
(`anchor/grafted_trees.py`): the turn after such a pause waits until the last of them has ended.
With `ids` each request names its stream and the stream that started it; without, nothing tells the
engine which agents wait, since a simulation has no texts. One H100 with Llama-3.1-8B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from anchor.grafted_trees import graft
from holdfast.traces.formats.trace_file import ignored
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session
from holdfast.traces.writers.canonical import write_canonical
from simulated_table import WINDOW, Load, make_table, table_options, table_parser

POLICIES = ("vllm-default", "cachewise", "holdfast")
NUM_SESSIONS = 150
MOST_TOKENS = 200_000
FIVE = {5: 1}
LOAD = ("--profile", "h100-llama3.1-8b", "--sub-agents", "tree", *WINDOW)


def with_calls(sessions: Sequence[Session]) -> Iterator[Session]:
    """Let turns that start sub-agents end with calls, and sub-agents with answers."""
    calling = {(session.parent_id, session.parent_turn) for session in sessions}
    for session in sessions:
        turns = list(session.turns)
        for index, turn in enumerate(turns):
            if (session.session_id, index) in calling:
                turns[index] = replace(turn, ended_by="tool", tool_name="Task", tools=())
        if session.parent_id is not None:
            turns[-1] = replace(turns[-1], ended_by="human", tool_name=None, tools=())
        yield replace(session, turns=tuple(turns))


def write_trees(traces: Path, seed: int, path: Path) -> None:
    """Write the trees of a seed; reads all sessions of `traces`."""
    sessions = [
        session
        for session in read_sessions(traces, seed=seed, on_unread=ignored)
        if max(turn.prompt_tokens for turn in session.turns) < MOST_TOKENS
    ]
    trees = graft(sessions[:NUM_SESSIONS], seed, widths=FIVE)
    with path.open("wb") as file:
        write_canonical(with_calls(trees), file)


def main() -> None:
    parser = table_parser(__doc__)
    options = table_options(parser.parse_args())
    if options.traces is None:
        parser.error("--traces is needed: sub-agents are grafted into recorded sessions")
    folder = options.output / "sub_agents"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(options.num_seeds):
        write_trees(options.traces, seed, folder / f"{seed}.jsonl")
    files = f"{folder}/{{seed}}.jsonl"
    loads = []
    for number in (4, 8):
        load = (*LOAD, "--concurrency", str(number))
        loads.append(Load(f"{number}", load, POLICIES, "no ids", files))
        loads.append(Load(f"{number}-ids", (*load, "--session-ids"), POLICIES, "ids", files))
    make_table(f"sub_agents-{options.traces_name}", loads, options)


if __name__ == "__main__":
    main()
