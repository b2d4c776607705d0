"""Decisions: which blocks to give up and whom to let in. One policy, one file."""
