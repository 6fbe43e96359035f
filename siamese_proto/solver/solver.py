"""The training loop (solver.cpp), with Caffe's order of tests, log lines, updates and snapshots."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamese_proto.errors import Location, NetError, SolverError
from siamese_proto.proto.parsed import ParsedSolver
from siamese_proto.solver import divergence, setup, snapshots
from siamese_proto.solver.batches import place_feeders
from siamese_proto.solver.debug import DebugPass
from siamese_proto.solver.log import Event, log, log_lines, log_outputs, number
from siamese_proto.solver.losses import Losses
from siamese_proto.solver.memory import give_back_freed_memory, keep_freed_memory
from siamese_proto.solver.newest import newest_complete
from siamese_proto.solver.parallel import current
from siamese_proto.solver.policies import learning_rate, next_step
from siamese_proto.solver.precision import execution
from siamese_proto.solver.recurrent_state import import_carried
from siamese_proto.solver.settings import Settings, read_settings
from siamese_proto.solver.test_scores import Scores

PathLike = str | os.PathLike[str]


class Solver:
    """Trains a net as a solver file says.

    `solver` is a path or text, a parsed solver or Settings. `weights` names weights files to begin with, `snapshot` a
    solver state to go on from; "auto" is the newest complete one of the snapshot_prefix, or none if there is none, and
    then the weights count. `data` maps data or Input layers of the training net to iterables of batches, read in
    place of what the layers name. `skip_bad_records` lets data layers leave out what they cannot use. `compiled` has
    torch.compile make one program of a pass, and `precision` is what it is computed in: fp32, bf16, and on GPUs tf32
    and fp16, parameters staying fp32. On the CPU memory that a step frees stays with the process for the next one,
    from then on: large nets are a third faster so. `close` gives back what is free. Raises NetError for whatever is
    wrong with the files, before training begins.

    `iteration` counts the updates made. `net` is trained, and `test_nets` share its parameters. Each pass runs a net as
    its phase says, as in Caffe: `train()` and `eval()` that were called on it in between do not change a run. `outputs`
    are the outputs of the last training pass. Each of `callbacks` is called with the solver after every iteration, each
    of `snapshot_callbacks` after every snapshot, and each of `test_callbacks` after every test, with the solver and the
    mean outputs of each test net.

    With `skip_mismatched`, layers whose blobs have other shapes in a weights file start from their fillers.
    """

    def __init__(
        self,
        solver: PathLike | ParsedSolver | Settings,
        weights: PathLike | Sequence[PathLike] | None = None,
        snapshot: PathLike | None = None,
        data: Mapping[str, Iterable[Any]] | None = None,
        *,
        fuse: bool = True,
        allow_python_layers: bool = False,
        skip_bad_records: bool = False,
        compiled: bool = False,
        precision: str = "fp32",
        skip_mismatched: bool = False,
    ) -> None:
        self.settings = solver if isinstance(solver, Settings) else read_settings(solver)
        self.team = current()
        if weights and snapshot not in (None, "auto"):
            raise SolverError("weights and a snapshot were both given; a snapshot brings its own weights, so keep one")
        log_lines(Event.SETTINGS, f"Initializing solver from parameters: \n{self.settings.text}")
        setup.report(self.settings)
        options = setup.NetOptions(fuse, allow_python_layers, skip_bad_records)
        if self.settings.snapshot:
            snapshots.check_folder(self.settings.snapshot_prefix)
        self.net, self.batches = setup.train_net(self.settings, data or {}, options)
        self.test_nets = setup.test_nets(self.settings, self.net, options)
        self.execution = execution(precision, self.net.device)
        for net in (self.net, *self.test_nets):
            self.execution.apply(net, compiled=compiled)
        if self.net.device.type == "cpu":
            keep_freed_memory()
        log(Event.SOLVER_READY, "Solver scaffolding done.")
        self.rule = setup.update_rule(self.settings, self.net)
        self.net.run.sums_apart = self.rule.enlarges_rounding()
        self.callbacks: list[Callable[[Solver], None]] = []
        self.snapshot_callbacks: list[Callable[[Solver], None]] = []
        self.test_callbacks: list[Callable[[Solver, list[dict[str, Tensor]]], None]] = []
        self.iteration = 0
        self.current_step = 0
        self.outputs: dict[str, Tensor] = {}
        self.stopped = False  # whether the last run ended early because somebody asked for it
        self.last_batch: dict[str, Any] = {}
        self.last_snapshot: Path | None = None
        self.kept: list[int] = []  # iterations of the snapshots made that are there
        self.best: dict[str, float] = {}  # scores that weights are kept for
        self._losses = Losses()
        self._requests: set[str] = set()
        self._displayed = (0, time.monotonic())
        self._debug = {net: DebugPass(net) for net in (self.net, *self.test_nets) if self.settings.debug_info}
        self._shown: DebugPass | None = (
            None  # what shows the last iteration in full, and the last pass too, as in Caffe
        )
        if snapshot == "auto":
            snapshot = self.team.same(newest_complete(self.settings.snapshot_prefix) if self.team.is_first else None)
        if snapshot is not None:
            self.restore(snapshot)
        else:
            begin = self.settings.weights if weights is None else weights
            setup.load_weights(self.net, begin, skip_mismatched=skip_mismatched)
        self.team.share(list(self.net.tensors.values()))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise SolverError(
            "a Solver cannot be copied or pickled, because it reads data and calls functions: "
            "take solver.snapshot() and give it to a new Solver, or copy solver.net"
        )

    # Training, top to bottom

    def solve(self) -> None:
        """Train up to max_iter; then snapshot, display and test once more. Ends early where a stop was asked for.

        Raises SolverError where the settings have no max_iter; `step` runs without one.
        """
        if self.settings.max_iter is None:
            place = Location(self.settings.file, 1)
            raise SolverError("max_iter is missing: how many iterations to train for", location=place)
        log(Event.SOLVING, f"Solving {self.net.graph.name}")
        log(Event.RATE_POLICY, f"Learning Rate Policy: {self.settings.schedule.policy}")
        if self.settings.snapshot_after_train:
            snapshots.check_folder(self.settings.snapshot_prefix)
        with snapshots.writing(self.settings, self.team):
            self._solve(self.settings.max_iter)

    def _solve(self, max_iter: int) -> None:
        self.step(max(0, max_iter - self.iteration))
        self._check_losses()
        setup.report_bad_records([self.net, *self.test_nets])
        if (self.stopped or self.settings.snapshot_after_train) and not self._is_saved():
            self.snapshot()
        if self.stopped:
            log(Event.STOPPED, "Optimization stopped early.")
            return
        if _is_due(self.settings.display, self.iteration):
            with torch.no_grad():
                loss = self.team.mean(self._forward(0, self._shown)).item()
            mean = self._losses.mean(self.settings.average_loss, then=[loss])
            log(Event.FINAL_LOSS, f"Iteration {self.iteration}, loss = {number(mean)}")
        if _is_due(self.settings.test_interval, self.iteration):
            self._test_in_first()
        log(Event.SOLVED, "Optimization Done.")

    def step(self, iterations: int) -> None:
        """Train for so many iterations, with the tests, log lines and snapshots that fall due."""
        settings = self.settings
        end = self.iteration + iterations
        self.stopped = False
        self._displayed = (self.iteration, time.monotonic())
        while self.iteration < end and not self.stopped:
            may_test = self.iteration > 0 or settings.test_initialization
            if may_test and _is_due(settings.test_interval, self.iteration):
                self._test_in_first()
                if self.stopped:
                    break
            self._losses.append(self._accumulate_gradients())
            is_displayed = _is_due(settings.display, self.iteration)
            if is_displayed:
                self._display_training()
            rate = self._next_rate()
            if is_displayed:
                log(Event.LEARNING_RATE, f"Iteration {self.iteration}, lr = {number(rate)}")
            self.rule.set_rate(rate)
            self.execution.step(self.rule)
            self.iteration += 1
            for callback in self.callbacks:
                callback(self)
            if _is_due(settings.snapshot, self.iteration):
                self._try_snapshot()
            self._answer(self.team.union(self._requests))

    def test_all(self) -> list[dict[str, Tensor]]:
        """Test with every test net; the mean of each output over the net's test_iter batches."""
        scores: list[dict[str, Tensor]] = []
        for index in range(len(self.test_nets)):
            log(Event.TEST, f"Iteration {self.iteration}, Testing net (#{index})")
            found = self._test(index)
            if self.stopped:
                log(Event.TEST_STOPPED, "Test interrupted.")
                return scores
            scores.append(found)
        for callback in self.test_callbacks:
            callback(self, scores)
        return scores

    # Its parts

    def _accumulate_gradients(self) -> Tensor:
        """Run forward and backward over iter_size batches; the mean of their losses."""
        passes = self.settings.rule.iter_size
        debug = self._debug.get(self.net) if _is_due(self.settings.display, self.iteration) else None
        self._shown = debug
        self.rule.zero_grad()
        losses: list[Tensor] = []
        for draw in range(passes):
            loss = self._forward(draw, debug)
            if loss.requires_grad:  # a net without anything to learn has no way back
                self.execution.backward(loss)
            if debug is not None:
                debug.log_backward()
            losses.append(loss.detach())
        return self.team.average(self.rule.params, torch.stack(losses).mean() if passes > 1 else losses[0].clone())

    def _forward(self, draw: int, debug: DebugPass | None = None) -> Tensor:
        self.net.run.iteration, self.net.run.draw = self.iteration, draw
        self.net.train_as_built()
        self.last_batch = self.batches.next_batch()
        self.outputs = self.net(**self.last_batch) if debug is None else debug.forward(self.last_batch)
        return self.net.loss(self.outputs)

    def _next_rate(self) -> float:
        schedule = self.settings.schedule
        before, self.current_step = self.current_step, next_step(schedule, self.iteration, self.current_step)
        if schedule.policy == "multistep" and self.current_step != before:
            log(Event.RATE_STEP, f"MultiStep Status: Iteration {self.iteration}, step = {self.current_step}")
        return learning_rate(schedule, self.iteration, self.current_step)

    def _test(self, index: int) -> dict[str, Tensor]:
        net = self.test_nets[index]
        scores = Scores(net, self._debug.get(net))
        scores.net.run.iteration = self.iteration
        for _ in range(self.settings.test_nets[index].iterations):
            self._answer(set(self._requests))
            if self.stopped:
                return {}
            scores.run_batch()
        if self.settings.test_compute_loss:
            log(Event.TEST_LOSS, f"Test loss: {number(scores.loss())}")
        means = scores.means()
        log_outputs(Event.TEST_OUTPUT, "Test", net.graph, means)
        return means

    def _display_training(self) -> None:
        self._check_losses()
        since, started = self._displayed
        self._displayed = (self.iteration, time.monotonic())
        seconds = round(self._displayed[1] - started, 3)
        rate = number((self.iteration - since) / (seconds or 1))
        span = f"({rate} iter/s, {number(seconds)}s/{self.settings.display} iters)"
        mean = number(self._losses.mean(self.settings.average_loss))
        log(Event.TRAINING_LOSS, f"Iteration {self.iteration} {span}, loss = {mean}")
        log_outputs(Event.TRAINING_OUTPUT, "Train", self.net.graph, self.team.mean_outputs(self.outputs))

    def _check_losses(self) -> None:
        iteration = self._losses.first_not_finite()
        if iteration is not None:
            loss = self._losses.floats()[iteration - self._losses.first]
            raise divergence.problem(f"the loss of iteration {iteration} is {loss:g}", self, iteration)

    def passes_since(self, iteration: int) -> int:
        """How many forward passes of training were made since an iteration began."""
        return self._losses.since(iteration) * self.settings.rule.iter_size

    @property
    def first_iteration(self) -> int:
        """The iteration that this run began with, or went on with."""
        return self._losses.first

    # Looking at it, saving it, stopping it

    @property
    def losses(self) -> list[float]:
        """The loss of every iteration since the start or the last `restore`: before its update, mean over iter_size."""
        return list(self._losses.floats())

    def recent_losses(self, count: int | None = None) -> list[float]:
        """The last `count` losses, those before a `restore` too; without it those that are averaged when displayed."""
        return self._losses.recent(self.settings.average_loss if count is None else count)

    def snapshot(self) -> Path:
        """Write the weights, then the solver state, as PREFIX_iter_N; the path of the solver state.

        Raises SolverError where losses or parameters are not finite, so that the last good snapshot stays the last.
        """
        self._check_losses()
        if not self.team.is_first:
            self.last_snapshot = snapshots.names(self.settings, self.iteration)[1]
            return self.last_snapshot
        divergence.check_parameters(self)
        self.last_snapshot = snapshots.take(self)
        for callback in self.snapshot_callbacks:
            callback(self)
        return self.last_snapshot

    def restore(self, path: PathLike) -> None:
        """Go on from a solver state, Caffe's or ours; the weights file it names is looked for beside it too.

        A state of ours brings back where each data layer stood, and the seed, so that the run continues bit for bit.
        After a state of Caffe every data layer, of the training net and of test nets, starts at its first record, as
        in Caffe.
        Raises NetError where the files are damaged or belong to another net or update rule.
        """
        state = snapshots.read(self, path)
        self.iteration, self.current_step = state.iteration, state.current_step
        self._losses = Losses(self.iteration, state.recent_losses)
        self.last_snapshot = Path(path)
        self.kept, self.best = list(state.kept), dict(state.best)
        if state.seed is not None:
            self.net.run.seed = state.seed
        self.batches.go_to(state.positions)
        for net, test in zip(self.test_nets, self.settings.test_nets, strict=True):
            net.run.seed = self.net.run.seed
            tests = snapshots.tests_before(self.iteration, self.settings) if state.is_ours else 0
            place_feeders(net, dict.fromkeys(setup.data_layers(net), tests * test.iterations))
        import_carried([self.net, *self.test_nets], state.carried if self.team.is_first else ())

    def request_stop(self) -> None:
        """Ask the running `solve` or `step` to end after this iteration; may be called from a signal handler."""
        self._requests.add("stop")

    def request_snapshot(self) -> None:
        """Ask for a snapshot after this iteration; may be called from a signal handler."""
        self._requests.add("snapshot")

    def close(self) -> None:
        """Give the data layers' files and threads back, and memory that is free."""
        for net in (self.net, *self.test_nets):
            net.close()
        if self.net.device.type == "cpu":
            give_back_freed_memory()

    def _test_in_first(self) -> None:
        """Test in the first of the processes that train together; what it was asked for meanwhile holds for all."""
        if self.team.is_first:
            self.test_all()
        self.stopped = "stop" in self.team.union({"stop"} if self.stopped else set())

    def _answer(self, requests: set[str]) -> None:
        self._requests -= requests
        if "snapshot" in requests:
            self._try_snapshot()
        self.stopped = self.stopped or "stop" in requests

    def _try_snapshot(self) -> None:
        """A snapshot that cannot be written does not end the run: the next one may succeed."""
        try:
            self.snapshot()
        except SolverError:
            raise  # no fault of the file: the run itself has gone wrong
        except (OSError, NetError) as error:
            log(Event.SNAPSHOT, f"SNAPSHOT FAILED, training goes on without it: {error}", level=logging.ERROR)

    def _is_saved(self) -> bool:
        return self.last_snapshot == snapshots.names(self.settings, self.iteration)[1]


def _is_due(interval: int, iteration: int) -> bool:
    return interval > 0 and iteration % interval == 0
