"""What `blocklist doctor --repair` puts right: the record, its caches, the published files."""
