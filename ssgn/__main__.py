"""``python -m ssgn``, and so ``torchrun -m ssgn``: the command line."""

from .cli import main

main()
