"""Workloads: statistics and studies of traces, and generated sessions."""
