"""`python -m extproc` is the `holdfast` command."""

from extproc.cli import main

if __name__ == "__main__":
    main()
