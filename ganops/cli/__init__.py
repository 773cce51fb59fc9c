"""The command line: ``main()`` is the entry point ``ganops``. Only commands import torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ganops._version import __version__

DESCRIPTION = """Train, resume, sample and measure GANs. For a start:

  ganops train wgan-gp --data digits --steps 300 --out runs/first
  ganops resume runs/first --steps 600
  ganops sample runs/first --n 64 --out samples.png
  ganops eval runs/first
  ganops fid digits runs/first --features cnn

Every command has its own --help; --debug shows where an error arose; --version says which this is.
"""

OWN_PARSER = {  # commands with a command line of their own: name -> module, one-line help
    "doctor": ("ganops.cli.doctor", "What is installed, which kernels run here, and why."),
    "bench": ("ganops.cli.bench", "Time the operations against stock PyTorch on this machine."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. -> exit code: 0, 1 (training failed) or 2 (the request cannot be served)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if arguments == ["--version"]:
        print(f"ganops {__version__}")
        return 0
    if arguments and arguments[0] in OWN_PARSER:
        module = OWN_PARSER[arguments[0]][0]
        return _guarded(lambda: importlib.import_module(module).main(arguments[1:]), debug)
    return _guarded(lambda: _run(arguments), debug)


def _run(arguments: list[str]) -> int:
    # tyro: the same dataclasses give the options, their help, their types and near misses.
    try:
        import tyro
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the command line needs the package 'tyro': pip install 'ganops[train]'"
        ) from error
    from ganops.cli import commands

    command: Any = tyro.extras.subcommand_cli_from_dict(
        {**commands.COMMANDS, **{name: _listed(name) for name in OWN_PARSER}},
        prog="ganops",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return int(command.run())


def _listed(name: str) -> Callable[[], Any]:
    """A stand-in that puts a command with its own parser into ``ganops --help``."""

    def command() -> None:
        return None

    command.__doc__ = OWN_PARSER[name][1]
    return command


def _guarded(action: Callable[[], Any], debug: bool) -> int:
    """User mistakes become one sentence and exit code 2; --debug shows where they arose."""
    try:
        return int(action() or 0)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        if debug:
            raise
        print(f"ganops: error: {_sentence(error)}  (--debug shows where)", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if debug or type(error).__name__ != "NonFiniteError":
            raise
        print(f"ganops: training failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ganops: interrupted", file=sys.stderr)
        return 130


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
