"""Sessions, turns, tenants, hints, lineage and results; without an engine, a clock or I/O."""
