"""Measurements against the targets, as ratios to other programs in the same run; `python -m bench`."""
