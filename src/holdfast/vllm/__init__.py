"""Connects vLLM's scheduler to Holdfast's decisions.

The only package that imports vLLM. This file imports nothing, so that importing it is cheap.
"""
