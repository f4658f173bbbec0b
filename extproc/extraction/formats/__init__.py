"""One module for each format: `read(file, filename, bounds)` yields its text in pieces."""
