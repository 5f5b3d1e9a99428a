"""Fetching by img2dataset: the package itself, in a process of its own, asking by our manners."""
