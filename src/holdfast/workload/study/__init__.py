"""Measures the demands of agent sessions, recorded or generated, on a KV cache.

Takes sessions one at a time; does no I/O, reads no clock and draws no random numbers.
"""
