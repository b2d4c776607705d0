"""The agent runtime: observes turns, keeps sessions and reservations, asks policies, decides."""
