"""The host inside vLLM: translates between the engine and Holdfast's decisions.

The only package that imports vllm. Nothing is imported here, so that naming the package costs
nothing.
"""
