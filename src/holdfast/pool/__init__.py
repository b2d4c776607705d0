"""The directory that keeps KV blocks between starts of an engine."""
