"""Everything about the Envoy beside the sidecar: its one config and what is put into it."""
