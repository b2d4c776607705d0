"""Holdfast keeps an agent's KV cache warm while the agent is away at a tool."""

__all__ = ["__version__"]

__version__ = "0.1.0"
