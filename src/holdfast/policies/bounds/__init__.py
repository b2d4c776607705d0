"""Bounds to compare with; they know what no engine can know."""
