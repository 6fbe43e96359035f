"""One run of the killed-run test, in a separate process."""

import os
from pathlib import Path

import torch

from siamese_proto.solver import Solver

THREADS = 1


def train(folder: str) -> None:
    """Resume from the newest snapshot and record every loss, bit for bit, as soon as it is computed."""
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
    """Return the losses recorded for each iteration; a kill may have cut off the last line of a run."""
    losses: dict[int, set[str]] = {}
    for line in (folder / "losses.txt").read_text().splitlines():
        iteration, _, loss = line.partition(" ")
        if loss.endswith(tuple("0123456789")) and "p" in loss:
            losses.setdefault(int(iteration), set()).add(loss)
    return losses
