"""From stored history and a request to what the model is sent. Pure."""
