"""Workloads: what traces look like, and traces made to look alike."""
