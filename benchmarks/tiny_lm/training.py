"""Trains the small model, from short sequences to long ones."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tiny_lm.facts import PLAIN, VOCABULARY, Mix, make_facts

__all__ = ["answers_of", "new_model", "train_model"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A length of sequences.

    Attributes:
        num_tokens: Of a sequence.
        step_tokens: Of a step.
        target: Running accuracy that ends the stage (0 to 1).
        mix: Kinds of events.
    """

    num_tokens: int
    step_tokens: int
    target: float
    mix: Mix = PLAIN


STAGES = (
    Stage(64, 2048, 0.9, Mix(record=0.25, distractor=0.0, question=0.75, num_facts=8, num_keys=8)),
    Stage(64, 2048, 0.9, Mix(record=0.25, distractor=0.0, question=0.75)),
    Stage(64, 2048, 0.97),
    Stage(128, 2048, 0.97),
    Stage(256, 2048, 0.97),
    Stage(512, 4096, 0.995),
)
MOST_STEPS = 6000
LEARNING_RATE, WARM_UP_STEPS = 2e-3, 50
FAST_PAIRS, SHARED, LOOK = 4, 2.5, 0.9
"""Of the heads that begin by looking at the token before; the look is sharp at these values."""
EMBEDDING_SCALE = 5.0

SAVE_EVERY = 50


def new_model(seed: int) -> Any:
    """A model of 345K parameters: two layers, width 128, four query heads and two KV heads.

    It is random but for two heads of the first layer that look at the token before. Training finds
    them by itself in minutes; so it takes less.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    _look_at_the_token_before(model)
    return model


def _look_at_the_token_before(model: Any) -> None:
    """Let the first KV head of the first layer, and its query heads, attend by distance. Mutates.

    All embeddings share their first coordinate. Queries and keys that come from it are the same at
    every token but for their rotation, and their product is largest at a distance of one.
    """
    size, attention = model.config.head_dim, model.model.layers[0].self_attn
    pairs = torch.arange(FAST_PAIRS)
    angles = 10_000.0 ** (-2 * pairs / size)
    with torch.no_grad():
        # As large as what the first layer adds, which would drown the token itself.
        model.model.embed_tokens.weight *= EMBEDDING_SCALE
        model.model.embed_tokens.weight[:, 0] = SHARED
        for weight, heads, turn in (
            (attention.k_proj.weight, (0,), 0.0 * angles),
            (attention.q_proj.weight, (0, 1), -angles),
        ):
            for head in heads:
                weight[head * size + pairs, 0] = LOOK * turn.cos()
                weight[head * size + size // 2 + pairs, 0] = LOOK * turn.sin()


def train_model(model: Any, seed: int, checkpoint: Path) -> None:
    """Train until nearly every answer is right. Mutates the model.

    Args:
        model: A new model.
        seed: Of the sequences.
        checkpoint: Where to go on from, and where to save.

    Raises:
        RuntimeError: It did not get there.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    stage = step = 0
    running = spent_s = 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        stage, step, running, spent_s = saved["at"]
    model.train()
    began_s = time.process_time() - spent_s
    while stage < len(STAGES):
        if step == MOST_STEPS:
            raise RuntimeError(f"seed {seed}: {running:.2f} right in stage {stage}")
        accuracy = _step(model, optimizer, STAGES[stage], (seed, stage, step))
        running = 0.95 * running + 0.05 * accuracy
        step += 1
        if running >= STAGES[stage].target:
            print(f"stage {stage} ends", flush=True)
            stage, running = stage + 1, 0.0
        if step % SAVE_EVERY == 0:
            spent_s = time.process_time() - began_s
            print(f"step {step} stage {stage} {running:.3f} {spent_s:.0f} CPU seconds", flush=True)
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**states, "at": (stage, step, running, spent_s)}, checkpoint)
    print(f"model: {step} steps, {time.process_time() - began_s:.0f} CPU seconds", flush=True)
    model.eval()


def _step(model: Any, optimizer: Any, stage: Stage, seed: tuple[int, int, int]) -> float:
    """One step, and how many of its answers were right before it (0 to 1)."""
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * min(1.0, (seed[-1] + 1) / WARM_UP_STEPS)
    batch = stage.step_tokens // stage.num_tokens
    logits, answers = answers_of(model, *make_facts(stage.mix, stage.num_tokens, batch, seed))
    loss = functional.cross_entropy(logits, answers)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float((logits.argmax(-1) == answers).float().mean())


def answers_of(model: Any, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (A, vocabulary) of all answers of a batch (B, T), and the answers (A,)."""
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    asked = labels[:, 1:] != -100
    return model.lm_head(hidden[asked]), labels[:, 1:][asked]
