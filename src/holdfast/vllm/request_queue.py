"""The engine's waiting requests: all are counted, only admitted ones may start.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue

__all__ = ["AdmissionQueue"]


class AdmissionQueue(RequestQueue):  # type: ignore[misc]
    """A request queue whose front is what was admitted last.

    The length counts every waiting request, so that an engine with only queued requests is not
    idle. Truth is whether a request is admitted, which the scheduling loop asks.
    """

    def __init__(self) -> None:
        self._requests: dict[str, Any] = {}
        self._admitted: list[Any] = []

    def admit(self, request_ids: Iterable[str]) -> None:
        """Replace what is admitted, first to start first; ignores ids not waiting here."""
        known = self._requests
        self._admitted = [known[i] for i in request_ids if i in known]
        self._admitted.reverse()

    def queued(self) -> Iterator[Any]:
        """Requests that are not admitted, in order of arrival."""
        admitted = {request.request_id for request in self._admitted}
        return (r for r in self._requests.values() if r.request_id not in admitted)

    @property
    def num_queued(self) -> int:
        """Requests that are not admitted (count)."""
        return len(self._requests) - len(self._admitted)

    def add_request(self, request: Any) -> None:
        """Add a request at the end, not admitted."""
        self._requests[request.request_id] = request

    def pop_request(self) -> Any:
        """Take the first admitted request."""
        request = self._admitted.pop()
        del self._requests[request.request_id]
        return request

    def peek_request(self) -> Any:
        """The first admitted request."""
        return self._admitted[-1]

    def prepend_request(self, request: Any) -> None:
        """Add a request at the front, not admitted."""
        self._requests = {request.request_id: request, **self._requests}

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Add requests at the front, the last given first, none admitted."""
        added = {r.request_id: r for r in requests}
        self._requests = {**dict(reversed(added.items())), **self._requests}

    def remove_request(self, request: Any) -> None:
        """Take out a waiting request."""
        self.remove_requests([request])

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Take out those of the requests that wait here."""
        for request in requests:
            self._requests.pop(request.request_id, None)
        self._admitted = [r for r in self._admitted if r.request_id in self._requests]

    def __bool__(self) -> bool:
        return bool(self._admitted)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._requests.values()))
