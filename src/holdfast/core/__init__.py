"""Pure domain.

Ids, events, sessions, chains of KV blocks, results. Knows no engine, no clock, no I/O.
"""
