"""What tells two sets of weights of one name apart.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from holdfast.pool.weights import weights_fingerprint

__all__ = ["weights_digest"]

_logger = logging.getLogger(__name__)


def weights_digest(config: Any) -> str | None:
    """Fingerprint of the weights; for random ones, the seed that makes them.

    Reads samples of the weights; None, with a warning, where they are not on this machine.

    Args:
        config: vLLM's `VllmConfig`.

    Raises:
        OSError: The weights are there but cannot be read.
    """
    model = config.model_config
    if config.load_config.load_format == "dummy":
        return f"random {model.seed}"
    directory = _local_model(model, config.load_config.download_dir)
    fingerprint = None if directory is None else weights_fingerprint(directory)
    if fingerprint is None:
        _logger.warning(
            "Holdfast cannot read the weights of %s and knows them by name and revision only:"
            " give new weights a new name",
            model.model,
        )
    return fingerprint


def _local_model(model: Any, download_dir: str | None) -> Path | None:
    directory = Path(model.model)
    if directory.exists():
        return directory
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(
            model.model, "config.json", cache_dir=download_dir, revision=model.revision
        )
    except ValueError:  # not a name of that hub, for example a URL
        return None
    return Path(found).parent if isinstance(found, str) else None
