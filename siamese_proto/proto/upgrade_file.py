"""Files in old dialects to files in today's."""

from __future__ import annotations

from pathlib import Path

from siamese_proto.proto.reader import parse_net, parse_solver
from siamese_proto.proto.writer import save_text, write_net, write_solver


def upgrade_net_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write a net in today's dialect; returns what had to be changed, one line each. Raises NetError."""
    parsed = parse_net(source)
    save_text(target, write_net(parsed))
    return parsed.upgrades


def upgrade_solver_file(source: Path, target: Path) -> tuple[str, ...]:
    """Write solver settings in today's dialect; see `upgrade_net_file`."""
    parsed = parse_solver(source)
    save_text(target, write_solver(parsed))
    return parsed.upgrades
