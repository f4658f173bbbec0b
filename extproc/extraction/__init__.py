"""Reads documents in a child process (rule X5): `engine.ports.Extraction`.

In the worker: `documents` (the port), `reader` (the child, kept alive), `spool`. In the child: `template`,
which forks for each document, `confinement`, `job`, `reading`, `chunking` and `formats`. In both: `wire`
and `bounds`.
"""
