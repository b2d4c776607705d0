"""Loads of KV blocks ahead of the requests that need them."""
