"""Compacted sessions: prefixes stored with fewer tokens, and loaded again."""
