"""A coding agent's loop: the model writes a file, a tool checks it, the model reads the result.

holdfast serve MODEL &
python examples/coding_agent.py http://127.0.0.1:8000 [TOKEN_OF_THE_ROUTES]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from openai import OpenAI

from holdfast.client import attach, session, tool

MAX_TURNS = 4
TASK = "Write a Python module with a function `median` of a list. Answer with the code only."


def main(url: str, token: str | None = None) -> None:
    # From here on each request tells the engine which session it belongs to.
    client = attach(OpenAI(base_url=f"{url}/v1", api_key="none"), token=token)
    model = client.models.list().data[0].id
    messages: list[Any] = [{"role": "user", "content": TASK}]
    with tempfile.TemporaryDirectory() as directory, session(agent_id="coder") as coder:
        for turn in range(MAX_TURNS):
            # The engine may forget the session as soon as this answer is complete.
            coder.is_last_turn = turn == MAX_TURNS - 1
            answer = client.chat.completions.create(model=model, messages=messages, max_tokens=64)
            code = answer.choices[0].message.content or ""
            # The engine keeps the session's cache while the tool runs.
            with tool("py_compile", expected_s=0.5):
                errors = check(code, Path(directory) / "median.py")
            print(f"turn {turn + 1}: {errors.splitlines()[-1] if errors else 'it compiles'}")
            if not errors:
                return
            messages += [
                {"role": "assistant", "content": code},
                {"role": "user", "content": f"It does not compile:\n{errors}"},
            ]


def check(code: str, path: Path) -> str:
    """What the compiler has to say about some code."""
    path.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "py_compile", path.name]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True).stderr


if __name__ == "__main__":
    main(*sys.argv[1:])
