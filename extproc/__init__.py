"""The ext_proc side: transport, exchanges, Envoy, the `holdfast` command and the composition root."""
