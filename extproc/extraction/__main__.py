"""`python -m extproc.extraction CONTROL PARENT`: the child process; `reader` starts it."""

from __future__ import annotations

import socket
import sys
from types import ModuleType
from typing import cast

from extproc.extraction.confinement import end_with, without_network


def main() -> None:
    """Serve the control socket whose descriptor is given until it is closed."""
    control, parent = int(sys.argv[1]), int(sys.argv[2])
    end_with(parent)
    # openpyxl uses it where it is there, and it brings threads, which a process that forks must not have.
    sys.modules["numpy"] = cast(ModuleType, None)
    from extproc.extraction.template import Template

    without_network()
    Template(socket.socket(fileno=control)).serve()


if __name__ == "__main__":
    main()
