"""What the programs have in common on the command line."""

from collections.abc import Callable, Sequence
import pathlib
import sys

from absl import app, flags, logging
import jax


def run(main: Callable[[], None]) -> None:
    """Runs a program whose options are absl flags and which takes no other argument."""

    def checked(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"unexpected argument {argv[1]}: give options as --flag=value.")
        if not flags.FLAGS["verbosity"].present:  # Orbax tells each step of a checkpoint.
            logging.set_verbosity(logging.WARNING)
        main()

    jax.config.update("jax_logging_level", "WARNING")
    app.run(checked)


def folder(flag: flags.FlagHolder[str]) -> pathlib.Path:
    """The folder that a flag names, made if need be; stops the program if it cannot be."""
    path = pathlib.Path(flag.value)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"flag --{flag.name}: {error}")
    return path


def flags_beside(one: flags.FlagHolder) -> dict[str, flags.Flag]:
    """All flags of the program that defines `one`."""
    module = flags.FLAGS.find_module_defining_flag(one.name)
    return {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(module)}
