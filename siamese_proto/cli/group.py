"""The main command: loads its commands when they are called, and turns problems into one line and an exit status."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TextIO

import click

from siamese_proto._interrupt import outer_problem
from siamese_proto.errors import NetError, did_you_mean, quoted
from siamese_proto.proto.excerpt import excerpt

PROBLEM = 1  # in the user's file or data; wrong usage is 2, as click has it
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


class OneLineProblems(click.Command):
    """A command that says in one line what is wrong with a user's file, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A user's problem is one line on stderr, with the source line, never a traceback."""
        warnings.showwarning = _show_warning
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # names that its encoding does not have
        try:
            return super().invoke(ctx)
        except NetError as problem:
            click.echo("\n".join(filter(None, (str(problem), excerpt(problem.location)))), err=True)
            ctx.exit(PROBLEM)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the whole program. Problems of the machine, such as a full disk under `--help`, are one line too."""
        _open_closed_streams()
        try:
            return super().main(*args, **settings)
        except Exception as problem:
            text = outer_problem(problem)
            if text is None:
                raise
            click.echo(text, err=True)
            sys.exit(PROBLEM)


def _open_closed_streams() -> None:
    """Open the standard streams that the caller has closed, who wants none of them, as the null device.

    Else the next file that is opened, a snapshot say, gets the number of the stream, and with it what libraries print.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the program runs


class LazyGroup(click.Group):
    """A group whose command `x` is the object `x` of the module `package`.x."""

    def __init__(
        self, *args: Any, commands_help: Mapping[str, str], package: str = "siamese_proto.cli", **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.commands_help = commands_help
        self.package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order in which one meets them."""
        return list(self.commands_help)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; imports its module."""
        if cmd_name not in self.commands_help:
            return None
        command = getattr(import_module(f"{self.package}.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.package}.{cmd_name}.{cmd_name} is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint where the name is not known."""
        if args and args[0] not in self.commands_help and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.commands_help)
            ctx.fail(f"no such command {quoted(args[0])}{hint or f'; `{ctx.command_path} --help` lists them'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.commands_help.items()))


class MainGroup(OneLineProblems, LazyGroup):
    """The group that all others stand in, and that tells the problems of all."""


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    click.echo(f"warning: {' '.join(str(message).split())}", file=file, err=True)
