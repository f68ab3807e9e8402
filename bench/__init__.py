"""Benchmarks: programs that report, side by side with a peer engine; nothing here is a test."""
