"""Tiers below the KV cache, on vLLM's own offloading connector."""
