"""Policies: what is evicted, admitted and prefetched. One policy, one file."""
