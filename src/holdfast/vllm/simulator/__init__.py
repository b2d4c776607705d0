"""vLLM's scheduler on a virtual clock, without a worker."""
