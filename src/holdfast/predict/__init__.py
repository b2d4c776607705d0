"""Models learned while serving: return times, costs, agents and the benefit of copies."""
