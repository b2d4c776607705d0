"""Models learned while serving: return times, costs, recurring agents, copies."""
