"""The training loop (solver.cpp), with Caffe's order of tests, log lines, updates and snapshots."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamese_proto.errors import Location, NetError, SolverError
from siamese_proto.layers.base import DataLayer
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedSolver
from siamese_proto.solver import divergence, setup, snapshots
from siamese_proto.solver.batches import place_feeders
from siamese_proto.solver.debug import DebugPass
from siamese_proto.solver.log import Event, log, log_lines, log_outputs, number
from siamese_proto.solver.parallel import current_group
from siamese_proto.solver.policies import learning_rate, next_step
from siamese_proto.solver.precision import execution
from siamese_proto.solver.settings import Settings, read_settings
from siamese_proto.solver.state import Losses
from siamese_proto.solver.test_scores import Scores

PathLike = str | os.PathLike[str]


class Solver:
    """Trains a net with the settings of a solver file.

    Every pass runs a net in the mode of its phase, as in Caffe: calls of `train()` and `eval()` in between do not
    change a run.

    Args:
        solver: A path or text, a parsed solver, or Settings.
        weights: Weights files to begin with, instead of those in the solver file.
        snapshot: A solver state to resume from. "auto" is the newest complete one of the snapshot_prefix; if there is
            none, the run begins with `weights`.
        data: Iterables of batches, by the name of the data or Input layer that they replace in the training net.
        fuse: Run equal towers as one, with the same results to rounding.
        allow_python_layers: Run the code of Python layers.
        skip_bad_records: Let data layers leave out records that they cannot use.
        compiled: Let torch.compile compile a pass.
        precision: fp32, bf16 or, on GPUs, tf32 and fp16. Parameters stay fp32.
        skip_mismatched: Leave layers whose blobs have other shapes in a weights file as their fillers made them.

    Attributes:
        net: The training net.
        test_nets: The nets to test with; they share the parameters of `net`.
        iteration: The number of updates so far.
        outputs: The outputs of the last training pass.
        callbacks: Called with the solver after every iteration.
        snapshot_callbacks: Called with the solver after every snapshot.
        test_callbacks: Called after every test with the solver and the mean outputs of each test net.

    Raises:
        NetError: The files have an error; raised before training begins.
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
        self.group = current_group()
        if weights and snapshot not in (None, "auto"):
            raise SolverError("both weights and a snapshot are given; a snapshot has its own weights, so give only one")
        log_lines(Event.SETTINGS, f"Initializing solver from parameters: \n{self.settings.text}")
        setup.warn_about_settings(self.settings)
        options = setup.NetOptions(
            fuse=fuse, allow_python_layers=allow_python_layers, skip_bad_records=skip_bad_records
        )
        if self.settings.snapshot:
            snapshots.check_folder(self.settings.snapshot_prefix)
        self.net, self.batches = setup.train_net(self.settings, data or {}, options)
        self.test_nets = setup.test_nets(self.settings, self.net, options)
        self.execution = execution(precision, self.net.device)
        for net in (self.net, *self.test_nets):
            self.execution.apply(net, compiled=compiled)
        log(Event.SOLVER_READY, "Solver scaffolding done.")
        self.rule = setup.update_rule(self.settings, self.net)
        self.callbacks: list[Callable[[Solver], None]] = []
        self.snapshot_callbacks: list[Callable[[Solver], None]] = []
        self.test_callbacks: list[Callable[[Solver, list[dict[str, Tensor]]], None]] = []
        self.iteration = 0
        self.current_step = 0
        self.outputs: dict[str, Tensor] = {}
        self.stopped = False  # whether the last run ended early on request
        self.last_batch: dict[str, Any] = {}
        self.last_snapshot: Path | None = None
        self.snapshot_iterations: list[int] = []
        self.best_scores: dict[str, float] = {}
        self.loss_history = Losses()
        self._requests: set[str] = set()
        self._displayed = (0, time.monotonic())
        self._debug = {net: DebugPass(net) for net in (self.net, *self.test_nets) if self.settings.debug_info}
        self._shown: DebugPass | None = None  # logs the last iteration in full, and the final pass too, as in Caffe
        if snapshot == "auto":
            prefix = self.settings.snapshot_prefix
            snapshot = self.group.broadcast_object(snapshots.newest_complete(prefix) if self.group.is_first else None)
        if snapshot is not None:
            self.restore(snapshot)
        else:
            begin = self.settings.weights if weights is None else weights
            setup.load_weights(self.net, begin, skip_mismatched=skip_mismatched)
        self.group.broadcast(list(self.net.tensors.values()))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise SolverError(
            "a Solver cannot be copied or pickled, because it reads data and calls functions: "
            "give solver.snapshot() to a new Solver, or copy solver.net"
        )

    # Training, top to bottom

    def solve(self) -> None:
        """Train up to max_iter, or until a stop is requested; then write a snapshot, display the loss and test.

        Raises:
            SolverError: The settings have no max_iter; `step` needs none.
        """
        if self.settings.max_iter is None:
            place = Location(self.settings.file, 1)
            raise SolverError("max_iter is missing: the number of iterations to train for", location=place)
        log(Event.SOLVING, f"Solving {self.net.graph.name}")
        log(Event.RATE_POLICY, f"Learning Rate Policy: {self.settings.schedule.policy}")
        if self.settings.snapshot_after_train:
            snapshots.check_folder(self.settings.snapshot_prefix)
        with snapshots.reserved_prefix(self.settings, self.group):
            self.step(max(0, self.settings.max_iter - self.iteration))
            self._finish()

    def _finish(self) -> None:
        divergence.check_losses(self)
        setup.log_bad_records([self.net, *self.test_nets])
        is_saved = self.last_snapshot == snapshots.snapshot_paths(self.settings, self.iteration)[1]
        if (self.stopped or self.settings.snapshot_after_train) and not is_saved:
            self.snapshot()
        if self.stopped:
            log(Event.STOPPED, "Optimization stopped early.")
            return
        if _is_due(self.settings.display, self.iteration):
            with torch.no_grad():
                loss = self.group.all_reduce_mean(self._forward(0, self._shown)).item()
            mean = self.loss_history.mean(self.settings.average_loss, then=[loss])
            log(Event.FINAL_LOSS, f"Iteration {self.iteration}, loss = {number(mean)}")
        if _is_due(self.settings.test_interval, self.iteration):
            self._run_tests()
        log(Event.SOLVED, "Optimization Done.")

    def step(self, iterations: int) -> None:
        """Train for the given number of iterations, with the tests, log lines and snapshots that are due."""
        settings = self.settings
        end = self.iteration + iterations
        self.stopped = False
        self._displayed = (self.iteration, time.monotonic())
        while self.iteration < end and not self.stopped:
            may_test = self.iteration > 0 or settings.test_initialization
            if may_test and _is_due(settings.test_interval, self.iteration):
                self._run_tests()
                if self.stopped:
                    break
            self.loss_history.append(self._accumulate_gradients())
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
            self._handle(self.group.all_reduce_requests(self._requests))

    def test_all(self) -> list[dict[str, Tensor]]:
        """Test with every test net; returns the means of its outputs over its test_iter batches."""
        scores: list[dict[str, Tensor]] = []
        for index in range(len(self.test_nets)):
            log(Event.TEST, f"Iteration {self.iteration}, Testing net (#{index})")
            means = self._test(index)
            if self.stopped:
                log(Event.TEST_STOPPED, "Test interrupted.")
                return scores
            scores.append(means)
        for callback in self.test_callbacks:
            callback(self, scores)
        return scores

    # The parts of the loop

    def _accumulate_gradients(self) -> Tensor:
        """Run forward and backward over iter_size batches; returns the mean of their losses."""
        passes = self.settings.rule.iter_size
        debug = self._debug.get(self.net) if _is_due(self.settings.display, self.iteration) else None
        self._shown = debug
        self.rule.zero_grad()
        losses: list[Tensor] = []
        for draw in range(passes):
            loss = self._forward(draw, debug)
            if loss.requires_grad:  # a net without parameters to learn has no backward pass
                self.execution.backward(loss)
            if debug is not None:
                debug.log_backward()
            losses.append(loss.detach())
        mean = torch.stack(losses).mean() if passes > 1 else losses[0].clone()
        return self.group.all_reduce_gradients(self.rule.params, mean)

    def _forward(self, draw: int, debug: DebugPass | None = None) -> Tensor:
        self.net.run_state.iteration, self.net.run_state.draw = self.iteration, draw
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
        scores.net.run_state.iteration = self.iteration
        for _ in range(self.settings.test_nets[index].iterations):
            self._handle(set(self._requests))
            if self.stopped:
                return {}
            scores.run_batch()
        if self.settings.test_compute_loss:
            log(Event.TEST_LOSS, f"Test loss: {number(scores.loss())}")
        means = scores.means()
        log_outputs(Event.TEST_OUTPUT, "Test", net.graph, means)
        return means

    def _display_training(self) -> None:
        divergence.check_losses(self)
        since, started = self._displayed
        self._displayed = (self.iteration, time.monotonic())
        seconds = round(self._displayed[1] - started, 3)
        rate = number((self.iteration - since) / (seconds or 1))
        span = f"({rate} iter/s, {number(seconds)}s/{self.settings.display} iters)"
        mean = number(self.loss_history.mean(self.settings.average_loss))
        log(Event.TRAINING_LOSS, f"Iteration {self.iteration} {span}, loss = {mean}")
        log_outputs(Event.TRAINING_OUTPUT, "Train", self.net.graph, self.group.mean_outputs(self.outputs))

    def _run_tests(self) -> None:
        """Test in the first process; a stop that is requested meanwhile stops all processes."""
        if self.group.is_first:
            self.test_all()
        self.stopped = "stop" in self.group.all_reduce_requests({"stop"} if self.stopped else set())

    def _handle(self, requests: set[str]) -> None:
        self._requests -= requests
        if "snapshot" in requests:
            self._try_snapshot()
        self.stopped = self.stopped or "stop" in requests

    def _try_snapshot(self) -> None:
        try:
            self.snapshot()
        except SolverError:
            raise  # the run itself has failed
        except (OSError, NetError) as error:
            snapshots.log_failure(error)

    # Losses, snapshots and requests

    @property
    def losses(self) -> list[float]:
        """The loss of every iteration since the start or the last `restore`: before its update, mean over iter_size."""
        return list(self.loss_history.floats())

    def recent_losses(self, count: int | None = None) -> list[float]:
        """Return the last `count` losses, including those before a `restore`; by default `average_loss` of them."""
        return self.loss_history.recent(self.settings.average_loss if count is None else count)

    def snapshot(self) -> Path:
        """Write the weights, then the solver state, as PREFIX_iter_N; returns the path of the solver state.

        Raises:
            SolverError: Losses or parameters are not finite, so that the last good snapshot stays the last.
        """
        divergence.check_losses(self)
        if not self.group.is_first:
            self.last_snapshot = snapshots.snapshot_paths(self.settings, self.iteration)[1]
            return self.last_snapshot
        divergence.check_parameters(self)
        self.last_snapshot = snapshots.write_snapshot(self)
        for callback in self.snapshot_callbacks:
            callback(self)
        return self.last_snapshot

    def restore(self, path: PathLike) -> None:
        """Resume from a solver state, Caffe's or ours; the weights file that it names may also be in the same folder.

        A state of ours restores the position of each data layer, and the seed, so that the run continues bit for bit.
        After a state of Caffe every data layer, of the training net and of test nets, starts at its first record, as
        in Caffe.

        Raises:
            NetError: The files are damaged, or belong to another net or update rule.
        """
        stored = snapshots.restore_parameters(self, path)
        resume = stored.resume if stored.resume is not None else schema.ResumeState()
        self.iteration, self.current_step = stored.iteration, stored.current_step
        self.loss_history = Losses(self.iteration, resume.recent_loss)
        self.last_snapshot = Path(path)
        own_path = snapshots.snapshot_paths(self.settings, self.iteration)[1]
        # A snapshot under another prefix lists the files of another run.
        self.snapshot_iterations = list(resume.kept) if Path(path).resolve() == own_path.resolve() else []
        self.best_scores = {score.output: score.value for score in resume.best}
        if stored.resume is not None:
            self.net.run_state.seed = resume.random_seed
        self.batches.go_to({position.layer: position.batches for position in resume.data})
        tests = snapshots.tests_before(self.iteration, self.settings) if stored.resume is not None else 0
        for net, test in zip(self.test_nets, self.settings.test_nets, strict=True):
            net.run_state.seed = self.net.run_state.seed
            sources = [node.id for node in net.graph.nodes if isinstance(node.layer, DataLayer)]
            place_feeders(net, dict.fromkeys(sources, tests * test.iterations))
        states = resume.carried if self.group.is_first else ()
        snapshots.restore_recurrent_states([self.net, *self.test_nets], states)

    def request_stop(self) -> None:
        """Ask the running `solve` or `step` to end after this iteration; may be called from a signal handler."""
        self._requests.add("stop")

    def request_snapshot(self) -> None:
        """Ask for a snapshot after this iteration; may be called from a signal handler."""
        self._requests.add("snapshot")

    def close(self) -> None:
        """Release the files and threads of data layers."""
        for net in (self.net, *self.test_nets):
            net.close()


def _is_due(interval: int, iteration: int) -> bool:
    return interval > 0 and iteration % interval == 0
