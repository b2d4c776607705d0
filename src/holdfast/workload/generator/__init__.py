"""Generates sessions from parameter sets, fitted to a study or written by hand.

`parameters` defines a set, `files` reads it, `fit` makes one from a study, `families` draws
sessions from it.
"""
