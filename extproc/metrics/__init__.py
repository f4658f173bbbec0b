"""Metrics: what is declared, how workers write it down, and the one endpoint of a pod (docs/adr/0025)."""
