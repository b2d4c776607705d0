"""Workflows that applications have declared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from holdfast.core.bounded_name import bounded_name
from holdfast.core.commands import CommandOutcome, DeclareWorkflow, EndWorkflow

__all__ = ["DeclaredWorkflows"]

_MAX_WORKFLOWS: Final = 1024


class DeclaredWorkflows:
    """Step graphs by tenant and workflow; the longest undeclared is forgotten first."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[str, str], Mapping[str, Any]] = OrderedDict()

    def __len__(self) -> int:
        """Declared workflows (count)."""
        return len(self._graphs)

    def graph_of(self, tenant: str, workflow_id: str) -> Mapping[str, Any] | None:
        """The step graph of a workflow; None if none is declared. Pure."""
        return self._graphs.get((bounded_name(tenant), bounded_name(workflow_id)))

    def declare(self, command: DeclareWorkflow) -> CommandOutcome:
        """Remember a workflow's step graph, in place of an older one. Mutates."""
        key = bounded_name(command.tenant), bounded_name(command.workflow_id)
        self._graphs[key] = command.graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > _MAX_WORKFLOWS:
            self._graphs.popitem(last=False)
        return CommandOutcome("accepted")

    def end(self, command: EndWorkflow) -> CommandOutcome:
        """Forget a workflow's step graph. Mutates."""
        key = bounded_name(command.tenant), bounded_name(command.workflow_id)
        if self._graphs.pop(key, None) is None:
            return CommandOutcome("unknown_workflow", "no such workflow of this tenant is declared")
        return CommandOutcome("accepted")
