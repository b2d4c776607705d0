"""Closed-loop load on live engines, and the engine processes it runs against."""
