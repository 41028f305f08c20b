"""Commands: options, output, exit codes; no logic."""
