"""The agent runtime: observes turns, keeps sessions, asks policies, decides."""
