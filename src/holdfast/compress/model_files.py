"""Models and tokenizers from files on this machine: a directory or a GGUF file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.errors import ConfigError

__all__ = ["load_model", "require_libraries"]

_HINT = "pip install 'holdfast[compress]'"


def require_libraries() -> None:
    """Check that models can be loaded.

    Raises:
        ConfigError: torch or transformers is not installed.
    """
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"token-level eviction needs {' and '.join(missing)}", hint=_HINT)


def load_model(path: Path, *, num_threads: int | None = None) -> tuple[Any, Any]:
    """A causal language model in float32, and its tokenizer; reads files, no network.

    Args:
        path: A directory as transformers saves it (safetensors, config, tokenizer), or a GGUF
            file, whose quantized weights become float32 and which has its tokenizer.
        num_threads: CPU threads of the process from now on; torch's default if None.

    Returns:
        The model, in evaluation mode, and the tokenizer.

    Raises:
        ConfigError: There is no such file, a library is missing, or it is no model.
    """
    require_libraries()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    source: dict[str, Any] = {"local_files_only": True}
    if path.is_file():
        folder = path.parent
        source["gguf_file"] = path.name
    elif path.is_dir():
        folder = path
    else:
        raise ConfigError(f"{path}: no such model", hint="a directory, or a GGUF file")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source)
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    except ImportError as error:
        raise ConfigError(f"{path}: cannot be loaded: {_first_line(error)}", hint=_HINT) from error
    except (OSError, ValueError, KeyError, NotImplementedError, SafetensorError) as error:
        # transformers reports broken, unknown and incomplete files by any of these.
        raise ConfigError(f"{path}: cannot be loaded: {_first_line(error)}") from error
    return model.eval(), tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
