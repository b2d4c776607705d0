"""Token-level eviction: which entries of a KV cache stay, and what that costs.

Lossy, so nothing else in Holdfast uses it. The package knows torch and transformers, which come
with the extra `compress`, and no engine.
"""
