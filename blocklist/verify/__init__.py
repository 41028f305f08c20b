"""DNS verification: names and resolvers in, verdicts out."""
