"""A radix-tree prefix cache and its eviction queue, independent of any engine."""
