"""An owner in the test's own process, and a link to it that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from holdfast.gateway.coordinator import Asked, LocalCoordinator
from holdfast.gateway.engines import Engine
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.owner import Owner
from holdfast.gateway.owner_messages import EngineSeen, Known, Refused, Report, Sent
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.remote_coordinator import RemoteCoordinator
from holdfast.gateway.settings import GatewayLimits

LEASE_S = 1800.0


def path(*texts: str) -> PromptPath:
    return PromptPath.of(("".join(texts[: n + 1]).encode() for n in range(len(texts))), 1000)


class OwnerHere:
    """What Ray does between replicas and their owner.

    Attributes:
        owner: The owner that lives now.
        engines: Its view of the engines.
        is_cut: Whether calls fail.
        num_reports: Reports that it answered.
    """

    def __init__(self, urls: Sequence[str] = ("http://a", "http://b")) -> None:
        self._urls = urls
        self.is_cut = False
        self.num_reports = 0
        self.restart()

    def restart(self) -> None:
        """Begin anew with an owner that knows nothing."""
        self.engines = self.known_engines()
        coordinator = LocalCoordinator(self.engines, GatewayLimits(), GatewayMetrics())
        self.coordinator = coordinator
        self.owner = Owner(self.engines, coordinator, LEASE_S)

    def known_engines(self) -> list[Engine]:
        return [Engine(f"e{number}", url) for number, url in enumerate(self._urls)]

    def replica(self, name: str) -> RemoteCoordinator:
        """A replica that does not report by itself."""
        return RemoteCoordinator(name, self.known_engines(), self, LEASE_S, GatewayMetrics())

    async def place(self, replica: str, number: int, asked: Asked) -> Sent | Refused | None:
        await self._pass()
        return await self.owner.place(replica, number, asked)

    async def report(self, replica: str, report: Report) -> Mapping[str, EngineSeen] | None:
        await self._pass()
        self.num_reports += 1
        return self.owner.report(replica, report)

    async def join(self, replica: str, known: Known) -> None:
        await self._pass()
        self.owner.join(replica, known)

    async def _pass(self) -> None:
        await asyncio.sleep(0)
        if self.is_cut:
            raise ConnectionError("the owner is dead")
