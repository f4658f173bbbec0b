"""The demo model of `holdfast up`: vLLM's wire without a GPU, deterministic, labelled as a demo."""
