"""The events that TensorBoard reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from siamese_proto.errors import SolverError
from siamese_proto.solver import Solver
from siamese_proto.solver.tensorboard import write_events

if not os.environ.get("CI"):
    pytest.importorskip("tensorboard")


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_losses_rates_and_test_outputs_are_written(write_run) -> None:
    solver = Solver(write_run(display=5))
    close = write_events(solver, "events")
    means = []
    solver.test_callbacks.append(lambda solver, scores: means.append((solver.iteration, scores[0]["loss"].item())))
    solver.solve()
    close()
    solver.close()
    written = scalars("events")
    assert written["train/loss"] == list(enumerate(pytest.approx(loss) for loss in solver.losses))
    assert written["train/lr"] == [(0, pytest.approx(0.01)), (5, pytest.approx(0.005)), (10, pytest.approx(0.0025))]
    assert written["test/loss"] == [(iteration, pytest.approx(mean)) for iteration, mean in means]
    assert [iteration for iteration, _ in means] == [0, 4, 8, 12]


def test_a_resumed_run_replaces_the_later_events(write_run) -> None:
    first = Solver(write_run(random_seed=2))
    close = write_events(first, "events")
    first.solve()
    close()
    first.close()
    second = Solver("solver.prototxt", snapshot="snap_iter_5.solverstate")
    close = write_events(second, "events")
    second.step(3)
    close()
    second.close()
    assert [step for step, _ in scalars("events")["train/loss"]] == list(range(8))


FULL_DISK = """
import resource
from siamese_proto.solver import Solver
from siamese_proto.solver.tensorboard import write_events
solver = Solver("solver.prototxt")
close = write_events(solver, "events")
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
solver.step(300)
close()
solver.close()
print(solver.iteration)
"""


@pytest.mark.slow
def test_a_run_continues_when_events_cannot_be_written(write_run) -> None:
    write_run(snapshot=0, display=1, test_iter=None, test_interval=None)
    done = subprocess.run([sys.executable, "-c", FULL_DISK], capture_output=True, text=True, check=True)
    assert done.stdout == "300\n"
    assert done.stderr.count("EVENTS FAILED, training continues without them: ") == 1


def test_a_missing_tensorboard_is_an_error(write_run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    solver = Solver(write_run())
    with pytest.raises(SolverError) as caught:
        write_events(solver, "events")
    assert str(caught.value) == (
        "tensorboard is not installed; python -m pip install tensorboard, or 'siamese-proto[tensorboard]'"
    )
    solver.close()


def test_a_folder_that_cannot_be_created_is_an_error(write_run) -> None:
    solver = Solver(write_run())
    Path("file").touch()
    with pytest.raises(SolverError, match="the folder for events, 'file', cannot be written to: "):
        write_events(solver, "file")
    solver.close()
