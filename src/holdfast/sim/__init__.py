"""The simulator: a virtual clock, cost profiles and runs of sessions."""
