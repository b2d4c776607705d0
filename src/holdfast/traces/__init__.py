"""Recorded and generated agent sessions: the canonical record, readers, the generator."""
