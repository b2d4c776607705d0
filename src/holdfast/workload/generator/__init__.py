"""Generated sessions that stand in for recorded ones, and workflows described by hand.

`parameters` is what a set says, `files` where it is read, `fit` makes one from a study, `families`
draws sessions from it.
"""
