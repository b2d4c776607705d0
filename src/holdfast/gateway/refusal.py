"""A request that the gateway answers by itself, with an error."""

from __future__ import annotations

__all__ = ["Refusal"]


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """The gateway answers by itself.

    Attributes:
        status: Status of the answer; its text is the message.
        retry_after_s: When the client may try again (s); None if never as it is.
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
