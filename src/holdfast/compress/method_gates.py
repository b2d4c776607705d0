"""The gates that methods name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.gates.gate_file import load_gates, model_digest
from holdfast.compress.methods import Method
from holdfast.errors import ConfigError

__all__ = ["gates_of"]


def gates_of(methods: Sequence[Method], model: Any) -> dict[str, RetentionGates]:
    """Load the gates of all methods that have some; reads files.

    Args:
        methods: Methods.
        model: The model that they are for.

    Returns:
        Gates by the methods' setting `gates`.

    Raises:
        ConfigError: A method that needs gates names none or those of another kind, or a file is not
            of gates of this model.
    """
    needing = [method for method in methods if "gates" in method.takes]
    for method in needing:
        if not method.settings.gates:
            raise ConfigError(
                f"method {method.name!r} needs gates",
                hint=f"{method.kind}:gates=PATH; `holdfast compress train` makes the file",
            )
    digest = model_digest(model) if needing else ""
    gates = {
        path: load_gates(Path(path), model, digest=digest)
        for path in {method.settings.gates for method in needing}
    }
    for method in needing:
        found = gates[method.settings.gates].shape.kind
        if found != method.kind:
            raise ConfigError(
                f"{method.settings.gates}: gates of kind {found}, not {method.kind}",
                hint=f"{found}:gates={method.settings.gates}",
            )
    return gates
