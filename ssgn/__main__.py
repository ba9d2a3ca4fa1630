"""Run the command line: ``python -m ssgn`` and ``torchrun -m ssgn``."""

from .cli import main

main()
