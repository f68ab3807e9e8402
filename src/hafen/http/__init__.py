"""HTTP/1.1 as a server: connections, TLS, heads, bodies, files. Knows nothing of containers or images."""
