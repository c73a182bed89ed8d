"""What the programs have in common on the command line."""

from collections.abc import Callable, Sequence
import sys

from absl import app
import jax


def run(main: Callable[[], None]) -> None:
    """Runs a program whose options are absl flags and which takes no other argument."""

    def checked(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"unexpected argument {argv[1]}: give options as --flag=value.")
        main()

    jax.config.update("jax_logging_level", "WARNING")
    app.run(checked)
