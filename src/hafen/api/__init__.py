"""Face: the Docker Engine HTTP API over the engine's services."""
