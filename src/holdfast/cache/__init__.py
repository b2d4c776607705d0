"""A radix-tree prefix cache: nodes, block lists and the eviction queue, free of any engine."""
