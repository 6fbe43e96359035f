"""Files in old dialects to files in today's."""

from __future__ import annotations

from pathlib import Path

from siamese_proto.proto.load import load_text
from siamese_proto.proto.reader import parse_net, parse_solver
from siamese_proto.proto.text import count_comments
from siamese_proto.proto.writer import save_text, write_net, write_solver


def upgrade_net_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write a net in today's dialect; returns what had to be changed, one line each. Raises NetError."""
    parsed, lost = parse_net(source), _lost(source)
    save_text(target, write_net(parsed))
    return (*parsed.upgrades, *lost)


def upgrade_solver_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write solver settings in today's dialect; see `upgrade_net_file`."""
    parsed, lost = parse_solver(source), _lost(source)
    save_text(target, write_solver(parsed))
    return (*parsed.upgrades, *lost)


def _lost(source: Path) -> tuple[str, ...]:
    """What the new file lacks; the source may be the target, so it is looked at before that is written."""
    comments = count_comments(load_text(source).text)
    return (f"comments are not kept ({comments})",) if comments else ()
