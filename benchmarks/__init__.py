"""Measurements: each writes JSON with commit, versions and hardware beside its numbers."""
