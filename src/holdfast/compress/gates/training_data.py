"""Sessions and generated samples as sequences to train gates on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from holdfast.compress.encoded import EncodedSample, read_conversations
from holdfast.compress.gates.batch import NO_LABEL, Batch
from holdfast.errors import ConfigError

__all__ = ["sample_batches", "session_batches"]


def session_batches(tokenizer: Any, path: Path, num_tokens: int) -> list[Batch]:
    """Recorded sessions, of which all that the assistant says is to be predicted.

    A session longer than `num_tokens` is cut into sequences that each begin without what was
    before. What has no answer is left out.

    Args:
        tokenizer: A tokenizer of transformers with a chat template.
        path: JSON lines, each with `messages` as in a request to a chat API.
        num_tokens: The longest sequence (at least 2).

    Returns:
        Batches of one sequence.

    Raises:
        ConfigError: The file is none of sessions, or no sequence has an answer.
    """
    batches = []
    for pieces in read_conversations(tokenizer, path):
        tokens = [token for piece in pieces for token in piece.tokens]
        labels = [
            token if piece.is_answer else NO_LABEL for piece in pieces for token in piece.tokens
        ]
        for start in range(0, len(tokens), num_tokens):
            end = start + num_tokens
            batches += _batch(tokens[start:end], labels[start:end])
    if not batches:
        raise ConfigError(f"{path}: no answer of an assistant to train on")
    return batches


def sample_batches(samples: Iterable[EncodedSample]) -> list[Batch]:
    """Generated samples, of which the answers are to be predicted.

    A sequence is a sample's turns, each followed by its questions and their answers.

    Args:
        samples: The samples.

    Returns:
        Batches of one sequence.
    """
    batches = []
    for sample in samples:
        tokens, labels = list[int](), list[int]()
        for turn in sample.turns:
            asked = [*turn.tokens]
            for question in turn.questions:
                asked += question.tokens
                tokens += [*asked, *question.answer]
                labels += [*[NO_LABEL] * len(asked), *question.answer]
                asked = []
            tokens += asked
            labels += [NO_LABEL] * len(asked)
        batches += _batch(tokens, labels)
    return batches


def _batch(tokens: list[int], labels: list[int]) -> list[Batch]:
    """A batch, or none where nothing is to be predicted."""
    if all(label == NO_LABEL for label in labels[1:]):
        return []
    return [Batch(torch.tensor([tokens]), torch.tensor([labels]))]
