"""Learned retention: small gates say how long to keep each entry of a KV cache.

Source: TRIM-KV (arXiv 2512.03324) and DBTrimKV ("Make Each Token Count", arXiv 2605.09649), and
their package `trimkv` 0.1.5. The model itself stays as it is; gates are trained beside it and
stored in a file of their own.
"""
