"""What `holdfast up` and `holdfast serve` run: child processes, their order, their end."""
