"""Selections out as files that an engine loads: render, check, release."""
