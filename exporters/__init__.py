"""The catalogue of targets: one TOML file a format. Data, no code."""
