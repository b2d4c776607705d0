"""Compacted sessions: a paused session's prefix stored with fewer tokens, and loaded again."""
