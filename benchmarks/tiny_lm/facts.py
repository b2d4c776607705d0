"""Sequences of facts, distractors and questions, as token ids. All functions are pure.

An event is three tokens: `R k v` says that key k has value v, `D k w` gives the same key another
value that does not count, `Q k v` asks for k and answers, and the rest is noise. A key has one
record. So a question asks for one entry among as many that look like it as there are distractors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["DILUTED", "PLAIN", "VOCABULARY", "Mix", "make_facts"]

NUM_KEYS, NUM_VALUES, NUM_NOISE = 64, 64, 61
RECORD, DISTRACTOR, QUESTION = range(3)
FIRST_KEY = 3
FIRST_VALUE = FIRST_KEY + NUM_KEYS
FIRST_NOISE = FIRST_VALUE + NUM_VALUES
VOCABULARY = FIRST_NOISE + NUM_NOISE
EVENT_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Mix:
    """How likely an event is of each kind; the rest is noise.

    Attributes:
        record: A record, while keys are left (0 to 1).
        distractor: A distractor (0 to 1).
        question: A question, once there is a record (0 to 1).
        num_facts: Keys of a sequence (1 to `num_keys`).
        num_keys: Keys that all sequences draw from (1 to 64).
    """

    record: float
    distractor: float
    question: float
    num_facts: int = 16
    num_keys: int = NUM_KEYS


PLAIN = Mix(record=0.2, distractor=0.2, question=0.45)
"""What the model is trained on."""

DILUTED = Mix(record=0.1, distractor=0.6, question=0.1)
"""What it is asked for: six distractors for each question."""


def make_facts(
    mix: Mix, num_tokens: int, batch: int, seed: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Sequences and what is asked in them.

    Args:
        mix: Kinds of events.
        num_tokens: Length T of a sequence; what three does not divide is noise at the end.
        batch: Sequences B.
        seed: Equal seeds give equal sequences.

    Returns:
        Token ids (B, T), int64, and labels (B, T), int64: an answer at its own place, else -100.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    num_events = num_tokens // EVENT_TOKENS
    drawn = rng.random((batch, num_events))
    edges = np.cumsum([mix.record, mix.distractor, mix.question])
    is_record = drawn < edges[0]
    number = np.cumsum(is_record, axis=1)
    is_record &= number <= mix.num_facts
    known = np.minimum(number, mix.num_facts)
    is_distractor = (drawn >= edges[0]) & (drawn < edges[1])
    is_question = (drawn >= edges[1]) & (drawn < edges[2]) & (known > 0)

    keys = np.argsort(rng.random((batch, mix.num_keys)), axis=1)[:, : mix.num_facts]
    values = rng.integers(NUM_VALUES, size=(batch, mix.num_facts))
    fact = np.where(is_record, known - 1, rng.integers(mix.num_facts, size=drawn.shape))
    fact = np.where(is_question, (rng.random(drawn.shape) * known).astype(np.int64), fact)
    value = np.take_along_axis(values, fact, axis=1)
    other = (value + 1 + rng.integers(NUM_VALUES - 1, size=drawn.shape)) % NUM_VALUES
    value = np.where(is_distractor, other, value)

    tokens = rng.integers(FIRST_NOISE, VOCABULARY, size=(batch, num_tokens))
    labels = np.full_like(tokens, -100)
    events = tokens[:, : num_events * EVENT_TOKENS].reshape(batch, num_events, EVENT_TOKENS)
    answers = labels[:, : num_events * EVENT_TOKENS].reshape(batch, num_events, EVENT_TOKENS)
    is_event = is_record | is_distractor | is_question
    kind = np.select([is_record, is_distractor], [RECORD, DISTRACTOR], QUESTION)
    key = np.take_along_axis(keys, fact, axis=1)
    written = np.stack([kind, FIRST_KEY + key, FIRST_VALUE + value], axis=-1)
    events[is_event] = written[is_event]
    answers[is_question, 2] = FIRST_VALUE + value[is_question]
    return torch.from_numpy(tokens), torch.from_numpy(labels)
