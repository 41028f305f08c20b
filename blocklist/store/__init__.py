"""The record: schema, SQLite database, snapshots and column files."""
