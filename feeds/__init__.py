"""The catalogue of sources: one TOML file a feed. Data, no code."""
