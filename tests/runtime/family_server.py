"""A runtime whose turns are texts, for agents that run beside each other."""

from __future__ import annotations

import json

from tests.runtime.test_lineage import HEAD, HUMAN, Server, _hashes, render

from holdfast.core.identity import Identity
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.turn_end import TurnEnd, turn_end_of

READ = turn_end_of((ToolCall("Read", "{}"),))


def tasks(*texts: str, name: str = "Task") -> TurnEnd:
    """The end of a turn that calls a sub-agent for each text."""
    return turn_end_of(tuple(ToolCall(name, json.dumps({"prompt": text})) for text in texts))


class FamilyServer(Server):
    """Sends turns of named agents; each agent's prompt grows from turn to turn.

    An agent is named `tenant:session` or `session`; a prompt repeats all that the agent said.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, str] = {}
        self._open: dict[str, Turn] = {}

    def arrive(
        self,
        name: str,
        text: str = "go on",
        *,
        parent: str | None = None,
        agent_id: str | None = None,
        is_side_call: bool = False,
        has_id: bool = True,
        after_s: float = 0.0,
    ) -> Session:
        """Send an agent's next prompt, so many seconds later, and start it."""
        self.now_s += after_s
        tenant, _, session_id = name.rpartition(":")
        said = self._said.get(name) or render([("system", HEAD + tenant)])
        prompt = said + render([("user", text)])
        self._num_requests += 1
        self.runtime.tick(self.now_s)
        turn = self.runtime.turn_arrived(
            f"r{self._num_requests}",
            _hashes(prompt),
            Identity(
                session_id=session_id if has_id else None,
                parent_session_id=parent,
                agent_id=agent_id,
                is_side_call=is_side_call,
                tenant=tenant,
            ),
            tokens=[ord(letter) for letter in prompt],
        )
        self.runtime.turn_started(turn)
        self._num_prompt_tokens[turn.request_id] = len(prompt)
        self._said[name] = prompt
        self._open[name] = turn
        return turn.session

    def answer(
        self,
        name: str,
        end: TurnEnd | None = HUMAN,
        text: str = "answer. ",
        *,
        after_s: float = 0.0,
    ) -> Session:
        """End an agent's turn."""
        self.now_s += after_s
        turn = self._open.pop(name)
        self._said[name] += text
        self.end(turn, self._said[name], end)
        return turn.session

    def say(self, name: str, text: str = "go on", end: TurnEnd | None = HUMAN) -> Session:
        """Send an agent's next prompt and end its turn at once."""
        self.arrive(name, text)
        return self.answer(name, end)
