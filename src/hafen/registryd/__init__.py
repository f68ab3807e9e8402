"""Face: a registry, the OCI distribution specification 1.1 over a content store and rows in SQLite."""
