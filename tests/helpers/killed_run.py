"""One run of the killed-run test, in a process of its own."""

import os
from pathlib import Path

import torch

from siamese_proto.solver import Solver

THREADS = 1


def train(folder: str) -> None:
    """Train on from the newest snapshot and note every loss, bit for bit, in the moment it is known."""
    os.chdir(folder)
    torch.set_num_threads(THREADS)
    solver = Solver("solver.prototxt", snapshot="auto")
    with open("losses.txt", "a", buffering=1) as file:

        def note(solver: Solver) -> None:
            file.write(f"{solver.iteration - 1} {solver.losses[-1].hex()}\n")

        solver.callbacks.append(note)
        solver.solve()
    solver.close()


def noted_losses(folder: Path) -> dict[int, set[str]]:
    """Every loss noted for an iteration; a kill may have cut the last line of a run off."""
    losses: dict[int, set[str]] = {}
    for line in (folder / "losses.txt").read_text().splitlines():
        iteration, _, loss = line.partition(" ")
        if loss.endswith(tuple("0123456789")) and "p" in loss:
            losses.setdefault(int(iteration), set()).add(loss)
    return losses
