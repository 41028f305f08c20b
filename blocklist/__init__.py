"""Aggregate feeds of hostile domains and addresses, verify them, export them, explain every block."""

__version__ = "0.1.0"
