"""The life of one response: a state machine that takes inputs and returns effects. Pure."""
