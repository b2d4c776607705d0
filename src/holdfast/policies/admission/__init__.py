"""Whom to let in: which waiting turns the engine may start now."""
