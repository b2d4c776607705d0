"""Sessions, turns, hints, lineage and results; without engine, clock or I/O."""
