"""Results as tables, JSON and self-contained HTML."""
