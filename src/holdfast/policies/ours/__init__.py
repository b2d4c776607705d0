"""Holdfast's own policies."""
