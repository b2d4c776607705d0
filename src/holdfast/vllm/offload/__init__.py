"""Tiers below the KV cache: stores, loads, prefetches and their net benefit."""
