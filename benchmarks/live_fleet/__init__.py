"""Engines, a gateway and Prometheus on loopback, under load."""
