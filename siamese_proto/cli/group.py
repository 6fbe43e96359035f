"""Command classes: lazy imports, options in sections, the net argument, and errors as one line."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TextIO

import click

from siamese_proto._interrupt import outer_problem
from siamese_proto.errors import NetError, did_you_mean, quoted
from siamese_proto.proto.excerpt import excerpt

PROBLEM = 1  # exit status for errors in files or data; click uses 2 for usage errors
INTERRUPTED = 130  # 128 + SIGINT, as in shells


class OneLineProblems(click.Command):
    """A command that prints errors in user files as one line and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Print a `NetError` as one line on stderr, with the source line, instead of a traceback."""
        warnings.showwarning = _show_warning
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # for names that the encoding cannot represent
        try:
            return super().invoke(ctx)
        except NetError as problem:
            click.echo("\n".join(filter(None, (str(problem), excerpt(problem.location)))), err=True)
            ctx.exit(PROBLEM)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the program. Print errors of the machine, such as a full disk, as one line too."""
        _open_closed_streams()
        try:
            return super().main(*args, **settings)
        except Exception as problem:
            text = outer_problem(problem)
            if text is None:
                raise
            click.echo(text, err=True)
            sys.exit(PROBLEM)


def section(title: str, *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add options to a command, in this order, under this title in its help."""

    def decorate(command: Any) -> Any:
        count = len(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        for param in command.__click_params__[count:]:
            vars(param).setdefault("section", title)
        return command

    return decorate


class NetArgument(click.Argument):
    """The net as a positional argument. `--model` replaces it, and the command then has one argument less."""


MODEL_OPTION = "model_option"  # the parameter of --model


class CaffeFlag(click.Option):
    """An option with Caffe's spellings, of which the help shows only the first."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the help for the first spelling."""
        spellings, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = spellings


class Command(click.Command):
    """A command whose help lists options by section (see `section`), and whose net can be given as `--model`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options for each section; those without a section come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title in sorted(sections, key=lambda title: title == "Options"):
            with formatter.section(title):
                formatter.write_dl(sections[title])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, without the net's argument where `--model` is used."""
        params = super().get_params(ctx)
        return [param for param in params if not (MODEL_OPTION in ctx.meta and isinstance(param, NetArgument))]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line. The net is its first argument or the value of `--model`, not both."""
        net = next((param for param in self.params if isinstance(param, NetArgument)), None)
        values = self.make_parser(ctx).parse_args(list(args))[0] if net is not None else {}
        if net is None or MODEL_OPTION not in values:
            return super().parse_args(ctx, args)
        arguments = [param for param in self.params if isinstance(param, click.Argument)]
        texts = [values.get(argument.name) for argument in arguments]
        if all(isinstance(text, str | tuple) and text for text in texts) and (
            len(arguments) == 1 or all(argument.nargs == 1 for argument in arguments)
        ):
            raise click.UsageError(f"the net is given twice, as {net.make_metavar(ctx)} and as --model", ctx)
        ctx.meta[MODEL_OPTION] = True
        rest = super().parse_args(ctx, args)
        model = values[MODEL_OPTION]
        ctx.params[net.name] = net.type_cast_value(ctx, model if net.nargs == 1 else (model,))
        return rest


def _open_closed_streams() -> None:
    """Open standard streams that the caller has closed as the null device.

    Otherwise the next file that is opened, such as a snapshot, gets the number of the stream and everything printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
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
        """Return the names of the commands, in the order of the help."""
        return list(self.commands_help)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command and return the command."""
        if cmd_name not in self.commands_help:
            return None
        command = getattr(import_module(f"{self.package}.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.package}.{cmd_name}.{cmd_name} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command like click, with a hint for unknown names."""
        if args and args[0] not in self.commands_help and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.commands_help)
            ctx.fail(f"no such command {quoted(args[0])}{hint or f'; `{ctx.command_path} --help` lists them'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.commands_help.items()))


class MainGroup(OneLineProblems, LazyGroup):
    """The main group, which prints the errors of all commands."""


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    click.echo(f"warning: {' '.join(str(message).split())}", file=file, err=True)
