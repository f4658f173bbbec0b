"""Implementations of the engine's ports: Postgres, and memory for tests and trying out."""
