"""Lines of Codex's rollouts."""

from __future__ import annotations

from typing import Any

__all__ = ["call", "context", "conversation", "item", "line", "message", "meta", "output", "used"]


def line(kind: str, time_s: int, **payload: Any) -> dict[str, Any]:
    stamp = f"2026-01-05T10:{time_s // 60:02d}:{time_s % 60:02d}.000Z"
    return {"timestamp": stamp, "type": kind, "payload": payload}


def meta(**fields: Any) -> dict[str, Any]:
    return line("session_meta", 0, **{"id": "s", "cli_version": "0.98", "source": "cli"} | fields)


def context(model: str = "gpt-5-codex") -> dict[str, Any]:
    return line("turn_context", 0, model=model, cwd="/x")


def item(time_s: int, kind: str, **fields: Any) -> dict[str, Any]:
    return line("response_item", time_s, type=kind, **fields)


def message(time_s: int, role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return item(time_s, "message", role=role, content=[{"type": kind, "text": text}])


def call(time_s: int, call_id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    return item(time_s, "function_call", call_id=call_id, name=name, arguments=arguments)


def output(time_s: int, call_id: str, text: str = "done") -> dict[str, Any]:
    return item(time_s, "function_call_output", call_id=call_id, output=text)


def used(
    time_s: int, total: tuple[int, int], last: tuple[int, int] | None = None, cached: int = 0
) -> dict[str, Any]:
    def usage(prompt: int, answer: int) -> dict[str, int]:
        return {
            "input_tokens": prompt,
            "cached_input_tokens": cached,
            "output_tokens": answer,
            "reasoning_output_tokens": answer // 2,
            "total_tokens": prompt + answer,
        }

    info = {"total_token_usage": usage(*total), "last_token_usage": last and usage(*last)}
    return line("event_msg", time_s, type="token_count", info=info, rate_limits=None)


def conversation() -> list[dict[str, Any]]:
    return [
        meta(),
        context(),
        message(1, "developer", "permissions"),
        message(2, "user", "please"),
        item(4, "reasoning", summary=[]),
        call(5, "c1", "exec_command", '{"cmd": "cd /x && cargo test"}'),
        used(5, (6400, 80), (6400, 80)),
        output(25, "c1"),
        message(29, "assistant", "it works"),
        used(30, (13440, 110), (7040, 30)),
        message(90, "user", "thanks"),
        message(92, "assistant", "bye"),
        used(92, (20640, 130), (7200, 20)),
    ]
