"""Run the command line: ``ssgn``, ``python -m ssgn`` and ``torchrun -m ssgn``."""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line, during imports too.

    Raises:
        SystemExit: with status 130 after Ctrl-C, or from the command line.
    """
    try:
        from .cli import main as run

        run()
    except (KeyboardInterrupt, SystemExit) as stopped:
        sys.unraisablehook = lambda _: None  # unfinished objects add no traceback
        if getattr(stopped, "code", 130) != 130:  # Typer makes it of a KeyboardInterrupt
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nor does a second Ctrl-C
        print(
            "interrupted: complete results are kept, and the same command continues from them",
            file=sys.stderr,
        )
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
