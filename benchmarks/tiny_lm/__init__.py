"""A language of facts and distractors, and a small model that learns it in minutes on a CPU."""
