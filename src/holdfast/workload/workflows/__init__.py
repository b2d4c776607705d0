"""Workflows: agents that hand over to each other, as generated sessions."""
