"""The engine's waiting requests: all of them counted, only the ones let in on offer.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue

__all__ = ["AdmissionQueue"]


class AdmissionQueue(RequestQueue):  # type: ignore[misc]
    """A request queue whose front is what was offered last.

    The length counts every waiting request, so that an engine with only held-back requests is not
    idle. Truth says whether a request is on offer, which is what the scheduling loop asks.
    """

    def __init__(self) -> None:
        self._requests: dict[str, Any] = {}
        self._offers: list[Any] = []

    def offer(self, request_ids: Iterable[str]) -> None:
        """Replace the offers; the first is scheduled first. Ids not waiting here are ignored."""
        known = self._requests
        self._offers = [known[i] for i in request_ids if i in known]
        self._offers.reverse()

    def queued(self) -> Iterator[Any]:
        """Requests that are not on offer, in order of arrival."""
        offered = {request.request_id for request in self._offers}
        return (r for r in self._requests.values() if r.request_id not in offered)

    @property
    def num_queued(self) -> int:
        """Requests that are not on offer (count)."""
        return len(self._requests) - len(self._offers)

    def add_request(self, request: Any) -> None:
        """Add a request at the end, not on offer."""
        self._requests[request.request_id] = request

    def pop_request(self) -> Any:
        """Take the first offer."""
        request = self._offers.pop()
        del self._requests[request.request_id]
        return request

    def peek_request(self) -> Any:
        """The first offer."""
        return self._offers[-1]

    def prepend_request(self, request: Any) -> None:
        """Add a request at the front, not on offer."""
        self._requests = {request.request_id: request, **self._requests}

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Add requests at the front, the last given foremost, none on offer."""
        added = {r.request_id: r for r in requests}
        self._requests = {**dict(reversed(added.items())), **self._requests}

    def remove_request(self, request: Any) -> None:
        """Take out a waiting request."""
        self.remove_requests([request])

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Take out those of the requests that wait here."""
        for request in requests:
            self._requests.pop(request.request_id, None)
        self._offers = [r for r in self._offers if r.request_id in self._requests]

    def __bool__(self) -> bool:
        return bool(self._offers)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._requests.values()))
