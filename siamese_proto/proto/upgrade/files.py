"""Upgrade files to the current format."""

from pathlib import Path

from siamese_proto.proto.load import load_text
from siamese_proto.proto.reader import parse_net, parse_solver
from siamese_proto.proto.text import count_comments
from siamese_proto.proto.writer import save_text, write_net, write_solver


def upgrade_net_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write a net in the current format.

    Returns:
        One line for each change.

    Raises:
        NetError: The source is not a net, or the target cannot be written.
    """
    parsed = parse_net(source)
    return _save(source, target, write_net(parsed), parsed.upgrades)


def upgrade_solver_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write solver settings in the current format; see `upgrade_net_file`."""
    parsed = parse_solver(source)
    return _save(source, target, write_solver(parsed), parsed.upgrades)


def _save(source: Path, target: Path, text: str, changes: tuple[str, ...]) -> tuple[str, ...]:
    comments = count_comments(load_text(source).text)  # before writing, because the source may be the target
    save_text(target, text)
    return (*changes, f"comments are not copied ({comments})") if comments else changes
