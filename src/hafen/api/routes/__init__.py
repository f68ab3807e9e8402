"""One module per family of paths; each ends in its part of the route table."""
