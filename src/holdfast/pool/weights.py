"""A fingerprint of a model's weights, from samples of its files.

Reading hundreds of gigabytes at each start takes too long, and names, sizes and headers are the
same for every fine-tuned copy. Training changes nearly every weight, so samples spread over each
file differ, unless a model was changed in few spots on purpose.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

__all__ = ["weights_fingerprint"]

_SAMPLES_PER_FILE: Final = 64
_SAMPLE_BYTES: Final = 4096
_WEIGHT_SUFFIXES: Final = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
_DESCRIPTIONS: Final = frozenset(
    {"config.json", "hf_quant_config.json", "params.json", "quantize_config.json"}
)


def weights_fingerprint(model: Path) -> str | None:
    """Hash names, sizes and samples of a model's files: SHA-256, hexadecimal.

    Args:
        model: Directory of the model, or its only file.

    Returns:
        None where there are no weight files.

    Raises:
        OSError: A file exists but cannot be read.
    """
    found = [model] if model.is_file() else sorted(model.glob("*")) if model.is_dir() else []
    weights = [path for path in found if path.suffix in _WEIGHT_SUFFIXES and path.is_file()]
    if not weights:
        return None
    digest = hashlib.sha256()
    for path in found:
        if path.name in _DESCRIPTIONS:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for path in weights:
        _add_samples(digest, path)
    return digest.hexdigest()


def _add_samples(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        digest.update(f"{path.name}\0{num_bytes}\0".encode())
        last = max(num_bytes - _SAMPLE_BYTES, 0)
        for sample in range(_SAMPLES_PER_FILE):
            file.seek(last * sample // (_SAMPLES_PER_FILE - 1))
            digest.update(file.read(_SAMPLE_BYTES))
