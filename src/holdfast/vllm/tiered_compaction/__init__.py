"""Compaction as the step before the last tier drops a session."""
