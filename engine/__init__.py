"""Gateway-agnostic engine of the Responses API: pure core, one loop, ports for everything outside."""
