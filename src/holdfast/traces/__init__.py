"""Recorded agent sessions: the canonical record, readers and writers."""
