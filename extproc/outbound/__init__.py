"""Connections to places that a request names: which are allowed, and how they are made (rule X3)."""
