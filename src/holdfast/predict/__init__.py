"""Predictions from what has been observed: when a session returns, and whether it does."""
