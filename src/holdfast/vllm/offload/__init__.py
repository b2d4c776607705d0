"""Tiers below the KV cache: stores, loads, prefetches, and when each has a net benefit."""
