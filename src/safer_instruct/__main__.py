"""`python -m safer_instruct`: the command where its script is not on the PATH."""

from __future__ import annotations

from safer_instruct.cli import main

if __name__ == "__main__":
    main()
