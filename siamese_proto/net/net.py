"""Back end 1: a net as a torch module."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from siamese_proto.compiler import load_graph
from siamese_proto.errors import GraphError, NetError, did_you_mean, quoted
from siamese_proto.graph.ir import Blob, Graph, Node, ParamUse, Phase, Shape
from siamese_proto.graph.traversal import Ancestry
from siamese_proto.layers.base import DataLayer, Feeder, Layer, RunState
from siamese_proto.net.parameters import Weights, make_weights
from siamese_proto.net.program import Form, Plan, bare, build_program, in_phase, plan, prepare
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet

logger = logging.getLogger(__name__)

Model = str | os.PathLike[str] | ParsedNet | schema.NetParameter | Graph


def _as_tensor(name: str, value: Any) -> Tensor:
    try:
        return torch.from_numpy(np.asarray(value))
    except (TypeError, ValueError):
        raise GraphError(
            f"blob {quoted(name)} is given as {type(value).__name__}; give a tensor or an array of numbers"
        ) from None


def _term(blob: Tensor, weight: float) -> Tensor:
    """`weight * blob.sum()`, without steps that change nothing: a small net would spend its time on them."""
    total = blob.sum() if blob.dim() else blob
    return total * weight if weight != 1 else total


@dataclass(frozen=True)
class _Compiled:
    """A program for one choice of given blobs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    program: fx.GraphModule
    call: Callable[..., tuple[Tensor, ...]]  # the same, as fast as can be


class Net(nn.Module):
    """A net that runs.

    `model` is a path or text, a parsed net, a message or a graph. Called with blobs by name it computes what follows
    from them; what is not given is pulled from its data layers. Parameters shared by name are one torch Parameter.
    `weights` is a weights file, or several. `shapes` gives shapes of inputs by blob name where a database is missing.
    `share_with` is another net whose parameters this one takes by layer name, as Caffe's test nets take those of the
    training net. `train()` and `eval()` change what layers do: whether Dropout drops, whether BatchNorm uses the batch.
    Which layers the net has, what it reads and how it crops stays with `phase`. A net for TRAIN begins in training
    mode, one for TEST in evaluation mode. A layer that writes its own `phase`, or `use_global_stats`, keeps it. `fuse`
    lets towers that share all their parameters run as one over their joined batches, and layers in the shortest way,
    with the same results to rounding. `seed` settles the first values of parameters and what random layers draw;
    without it both differ from run to run. With `skip_bad_records` data layers leave out records that cannot be used,
    in place of raising a DataError; `run_state.bad_records` names them by layer. Without `writes_files` its
    HDF5Output layers write nothing. Raises NetError for whatever is wrong with the net or its files.
    """

    def __init__(
        self,
        model: Model,
        phase: Phase = "TEST",
        weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        level: int = 0,
        stages: Iterable[str] = (),
        shapes: Mapping[str, Sequence[int]] | None = None,
        fuse: bool = True,
        allow_python_layers: bool = False,
        *,
        share_with: Net | None = None,
        seed: int | None = None,
        skip_bad_records: bool = False,
        writes_files: bool = True,
    ) -> None:
        super().__init__()
        graph = load_graph(model, phase, level, stages, shapes, allow_python_layers=allow_python_layers)
        if graph.problems:
            raise graph.problems[0]
        prepare(graph, writes_files=writes_files)
        first_seed = seed if seed is not None else int(torch.randint(2**62, ()))
        self.run_state = RunState(first_seed, skip_bad_records=skip_bad_records, writes_files=writes_files)
        self.weights = make_weights(graph, share_with._by_layer() if share_with is not None else {}, self.run_state)
        self._fuse = fuse
        self.train(graph.phase == "TRAIN")
        # By mode; the other one is made when it is asked for.
        self._forms = {self.training: Form.of(in_phase(graph, graph.phase), self.run_state, fuse=fuse)}
        self.feeders: dict[str, Feeder] = {}  # by node id: files repeat layer names
        self._positions: dict[str, int] = {}  # of sources to open again: batches that the net was copied after
        self._param_ids = [param.id for param in self.graph.params]
        self._compiled: dict[tuple[frozenset[str], bool, bool], _Compiled] = {}
        self._compiler: Callable[..., Any] | None = None
        self._autocast: torch.dtype | None = None
        self._sources: dict[frozenset[str], tuple[Node, ...]] = {}
        self._blob_names = frozenset(graph.blobs())
        self._loss_terms = [(graph.output_name(top), weight) for top, weight in graph.weighted_tops()]
        for path in [weights] if isinstance(weights, str | os.PathLike) else weights or ():
            self.load_weights(path)

    @property
    def graph(self) -> Graph:
        """The graph as written. Its layers act as the mode says that `train()` or `eval()` has set."""
        return self._form.graph

    @property
    def fused_graph(self) -> Graph:
        """The graph that runs instead of `graph` where nobody looks inside."""
        return self._form.fused

    @property
    def _form(self) -> Form:
        if self.training not in self._forms:
            other = in_phase(self._forms[not self.training].graph, "TRAIN" if self.training else "TEST")
            self._forms[self.training] = Form.of(other, self.run_state, fuse=self._fuse)
        return self._forms[self.training]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle has: all but programs, which are made again, and open sources and files.

        Sources are opened again when the copy pulls its first batch, after those that were delivered here.
        """
        positions = {**self._positions, **{node: feeder.batches for node, feeder in self.feeders.items()}}
        own_mode = self.graph.phase == "TRAIN"
        made_again = {"_compiled": {}, "_sources": {}, "_forms": {own_mode: self._forms[own_mode]}, "feeders": {}}
        return {**vars(self), **made_again, "_positions": positions}

    def extra_repr(self) -> str:
        """The listing of the graph, for printing."""
        return str(self.graph)

    # Parameters

    def _by_layer(self) -> dict[tuple[str, int], Tensor]:
        """Every tensor by layer name and blob index, sharers included."""
        return {
            (node.name, index): self.weights[use.param.id]
            for node in self.graph.nodes
            for index, use in enumerate(node.params)
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor once, by parameter id, in the order of `graph.params`."""
        return {param.id: self.weights[param.id] for param in self.graph.params}

    @property
    def params(self) -> dict[str, list[Tensor]]:
        """The parameters of every layer that has some, by layer name; those that are shared are the same object.

        A layer that shares with PERMISSIVE in a shape of its own gets a view of the owner's values and gradient.
        """
        return {node.name: [self._seen(use) for use in node.params] for node in self.graph.nodes if node.params}

    def _seen(self, use: ParamUse) -> Tensor:
        tensor = self.weights[use.param.id]
        if use.shape is None or use.shape == tuple(tensor.shape):
            return tensor
        view = tensor.detach().view(use.shape)
        if tensor.grad is not None:
            view.grad = tensor.grad.view(use.shape)
        return view

    # Running

    def forward(self, /, **blobs: Any) -> dict[str, Tensor]:
        """Every output blob and every blob with a loss weight, by name.

        The blobs given are tensors or arrays of any batch size. Where nothing of a data layer is given, and nothing
        computed from it, its next batch is pulled. Layers that lack a bottom, a label say, are left out and logged.
        """
        given = self._given(blobs)
        if self._pulled(frozenset(given)):
            given.update(self.pull(given))
        outputs = self._run(given, every_blob=False)
        self.run_state.draw += 1  # the next pass draws anew; a Solver says itself which pass it is
        return outputs

    def train_as_built(self) -> None:
        """Go back to the mode that the net began with: training in phase TRAIN, evaluation in phase TEST."""
        trains = self.graph.phase == "TRAIN"
        if self.training != trains:
            self.train(trains)

    def run_as(self, *, autocast: torch.dtype | None = None, compiled: bool = False) -> None:
        """Compute in another type where torch.autocast may; let torch.compile make one program of a whole pass.

        On a GPU a compiled pass is replayed from CUDA graphs, so it wants batches of one shape.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self._compiler = functools.partial(torch.compile, mode=mode) if compiled else None
        self._autocast = autocast
        self._compiled.clear()

    def blobs(self, /, **blobs: Any) -> dict[str, Tensor]:
        """Every blob by name, for looking inside; of one changed in place the last version. Writes no files."""
        given = self._given(blobs)
        given.update(self.pull(given))
        with self.run_state.writing_nothing():
            return self._run(given, every_blob=True)

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The sum of loss_weight * blob.sum() over the blobs of `outputs` that have a loss weight, a scalar tensor."""
        terms = [_term(outputs[key], weight) for key, weight in self._loss_terms if key in outputs]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0] if terms else torch.zeros(())

    def pull(self, given: Collection[str] = ()) -> dict[str, Tensor]:
        """The next batch of every data layer that has no blob in `given`, nor any blob computed from it there."""
        batch: dict[str, Tensor] = {}
        for node in self._pulled(frozenset(given)):
            assert isinstance(node.layer, DataLayer)  # as chosen
            try:
                feeder = self.feeders.get(node.id)
                if feeder is None:
                    feeder = self.feeders[node.id] = node.layer.open(self.run_state)
                    feeder.skip(self._positions.pop(node.id, 0))
                tensors = feeder.next_batch()
            except NetError as problem:
                raise problem.at(location=node.location, layer=node.name) from None
            for top, tensor in zip(node.tops, tensors, strict=True):
                # From pinned memory a GPU takes the batch while the program goes on.
                on_gpu = self.device.type == "cuda"
                batch[top.name] = (tensor.pin_memory() if on_gpu else tensor).to(self.device, non_blocking=on_gpu)
        return batch

    def close(self) -> None:
        """Stop the data layers' reading ahead, and finish the files that layers write."""
        self._positions.clear()
        while self.feeders:
            self.feeders.popitem()[1].close()
        while self.run_state.files:
            self.run_state.files.popitem()[1].close()

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU for a net without any."""
        return self.weights[self.graph.params[0].id].device if self.graph.params else torch.device("cpu")

    @property
    def _held(self) -> Weights:
        """As `weights`, for which torch looks in three places: a small net would notice."""
        return cast(Weights, self._modules["weights"])

    def _given(self, blobs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The blobs that a caller handed in, as tensors on the net's device and of its type."""
        first = self._held[self._param_ids[0]] if self._param_ids else None
        # A net without any parameters computes where its blobs are.
        device, dtype = (first.device, first.dtype) if first is not None else (None, None)
        names = self._blob_names
        given = {}
        for name, value in blobs.items():
            if name not in names:
                raise GraphError(f"the net has no blob {quoted(name)}{did_you_mean(name, names)}")
            tensor = value if isinstance(value, Tensor) else _as_tensor(name, value)
            if dtype is None and not tensor.is_floating_point():
                tensor = tensor.to(torch.get_default_dtype())
            is_placed = tensor.dtype is dtype and tensor.device == device
            given[name] = tensor if is_placed else tensor.to(device=device, dtype=dtype)
        return given

    def _pulled(self, given: frozenset[str]) -> tuple[Node, ...]:
        """The data layers that have no blob in `given`, nor any blob computed from it there."""
        if given not in self._sources:
            blobs = [top for node in self.graph.nodes for top in node.tops if top.name in given]
            ids = Ancestry(self.graph.nodes).before(*blobs)
            self._sources[given] = tuple(
                node for node in self.graph.nodes if isinstance(node.layer, DataLayer) and node.id not in ids
            )
        return self._sources[given]

    def _run(self, given: Mapping[str, Tensor], *, every_blob: bool) -> dict[str, Tensor]:
        key = (frozenset(given), every_blob, self.training)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(given, every_blob=every_blob)
        inputs = [*map(given.__getitem__, compiled.inputs), *map(self._held.__getitem__, self._param_ids)]
        try:
            if self._autocast is None:
                values = compiled.call(*inputs)
            else:
                with torch.autocast(self.device.type, self._autocast):
                    values = compiled.call(*inputs)
        except (GraphError, RuntimeError, IndexError, ValueError) as error:
            raise self._explained(given, error) from error
        return dict(zip(compiled.outputs, values, strict=True))

    def _compile(self, given: Mapping[str, Tensor], *, every_blob: bool) -> _Compiled:
        form = self._form
        todo = plan(form.graph, given)
        is_plain = every_blob or form.reaches_inside(todo)
        graph, modules = (form.graph, form.modules) if is_plain else (form.fused, form.fused_modules)
        weighted = [top for top, _ in self.graph.weighted_tops()]
        wanted = [top for node in self.graph.nodes for top in node.tops] if every_blob else self._outputs(todo)
        outputs = [blob for blob in dict.fromkeys([*wanted, *weighted]) if todo.has(blob)]
        if not outputs and (self.graph.outputs or weighted):
            raise self._lacking(given)
        if todo.left_out:
            names = ", ".join(quoted(node.name) for node in todo.left_out)
            logger.warning("left out, because what they read is not given: %s", names)
        keys = {form.graph.output_name(blob): blob for blob in outputs}
        program = build_program(graph, plan(graph, given), list(keys.values()), modules)
        call = self._compiler(program) if self._compiler is not None else bare(program)
        return _Compiled(tuple(blob.name for blob in todo.inputs), tuple(keys), program, call)

    def _lacking(self, given: Mapping[str, Tensor]) -> NetError:
        """Why nothing can be computed: Input layers, which nobody feeds but the caller, got nothing."""
        sources = [node for node in self.graph.nodes if node.is_source]
        names = ", ".join(quoted(top.name) for node in sources for top in node.tops) or "none"
        if given or not sources:
            fault = f"nothing can be computed from {', '.join(map(quoted, given)) or 'nothing'}"
            return GraphError(f"{fault}; the net's inputs are {names}")
        fault = f"nothing feeds its blobs; give them when the net is called ({names}), or let a data layer read them"
        return GraphError(fault, location=sources[0].location, layer=sources[0].name)

    def _outputs(self, todo: Plan) -> list[Blob]:
        """The blobs that no layer of the plan reads, in alphabetical order: features where the loss is left out."""
        read = {bottom.id for node in todo.nodes for bottom in node.bottoms}
        made = [*self.graph.outputs, *(top for node in todo.nodes for top in node.tops if not top.automatic)]
        unread = [blob for blob in dict.fromkeys(made) if blob.id not in read]
        return sorted(unread, key=lambda blob: blob.name.encode())

    def _explained(self, given: Mapping[str, Tensor], error: Exception) -> NetError:
        """Why a forward pass failed: the first layer that the shapes handed in do not suit."""
        shapes: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in given.items()}
        todo = plan(self.graph, given)
        for node in todo.nodes:
            assert isinstance(node.layer, Layer)  # a net with unknown layers is not made
            bottoms = [shapes[bottom.id] for bottom in node.bottoms]
            try:
                found = node.layer.param_shapes(bottoms)
                tops = node.layer.top_shapes(bottoms)
            except NetError as problem:
                return problem.at(location=node.location, layer=node.name)
            for use, shape in zip(node.params, found, strict=True):
                if tuple(shape) != use.shape:
                    wanted = ", ".join(str(bottom.shape) for bottom in node.bottoms)
                    return GraphError(
                        f"its {use.role} has shape {use.shape}, but bottoms of shape {bottoms} need {tuple(shape)}; "
                        f"the net was built for bottoms of shape {wanted}",
                        location=node.location,
                        layer=node.name,
                    )
            shapes.update({top.id: tuple(shape) for top, shape in zip(node.tops, tops, strict=True)})
        return error if isinstance(error, NetError) else GraphError(f"the forward pass failed: {error}")

    # Weights files

    def load_weights(self, path: str | os.PathLike[str], *, skip_mismatched: bool = False) -> Any:
        """Copy from a weights file by layer name; returns a report of what was loaded, missing, ignored and skipped.

        With `skip_mismatched` layers whose blobs have other shapes in the file stay as they are.
        """
        from siamese_proto.weights import match_weights, read_weights

        values, report = match_weights(self.graph, read_weights(path), skip_mismatched=skip_mismatched)
        with torch.no_grad():
            for param_id, value in values.items():
                self.weights[param_id].copy_(torch.from_numpy(np.asarray(value, order="C")))
        return report

    def save_weights(self, path: str | os.PathLike[str], *, diffs: bool = False) -> None:
        """Write a weights file; the suffix tells the format. With `diffs` those of Caffe hold the `grad`s too."""
        from siamese_proto.weights import write_weights

        values = {name: tensor.detach().cpu().numpy() for name, tensor in self.tensors.items()}
        grads = {name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in self.tensors.items() if diffs}
        gradients = {name: grad.detach().cpu().numpy() for name, grad in grads.items()}
        write_weights(path, self.graph, values, diffs=gradients if diffs else None)
