"""Blobs, snapshots, layers, volumes and the database; synchronous."""
