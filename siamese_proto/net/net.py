"""A net as a torch module: parameters, data layers, and forward passes."""

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

from siamese_proto.compiler import build_graph
from siamese_proto.errors import GraphError, NetError, did_you_mean, quoted
from siamese_proto.graph.ir import Blob, Graph, Node, ParamUse, Phase, Shape
from siamese_proto.graph.traversal import Ancestry
from siamese_proto.layers.base import DataLayer, Feeder, Layer, RunState
from siamese_proto.net.parameters import Weights, make_weights
from siamese_proto.net.program import (
    Form,
    Plan,
    build_program,
    in_phase,
    make_plan,
    prepare,
    without_module_calls,
)
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet

logger = logging.getLogger(__name__)

Model = str | os.PathLike[str] | ParsedNet | schema.NetParameter | Graph


@dataclass(frozen=True)
class _Compiled:
    """A program for one choice of input blobs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    program: fx.GraphModule
    call: Callable[..., tuple[Tensor, ...]]  # the same function, with fewer calls or compiled


class Net(nn.Module):
    """A net that runs.

    Calling it with blobs by name computes what depends on them; the next batch of data layers is pulled for the rest.
    Parameters that are shared by name are one torch Parameter.

    `train()` and `eval()` change what layers do: whether Dropout drops, whether BatchNorm uses the batch. The selection
    of layers, the sources and their crops depend on `phase` alone. A net for TRAIN begins in training mode, one for
    TEST in evaluation mode. A layer that sets its own `phase`, or `use_global_stats`, keeps it.

    Args:
        model: A path, a text, a parsed net, a message or a graph.
        phase: "TRAIN" or "TEST".
        weights: A weights file, or several.
        level: The level that rules of layers are matched with.
        stages: The stages that rules of layers are matched with.
        shapes: Shapes of inputs by blob name, for nets whose database is missing.
        fuse: Run an optimized graph: towers that share all their parameters as one, for example. Results are equal up
            to rounding.
        allow_python_layers: Import and run the Python code that Python layers name.
        share_with: A net whose parameters this one uses, by layer name, as Caffe's test nets use those of the training
            net.
        seed: Determines the first values of parameters and what random layers draw; without it both differ in each run.
        skip_bad_records: Let data layers skip records that cannot be used instead of raising a DataError;
            `run_state.bad_records` lists them by layer.
        writes_files: Let HDF5Output layers write their files.

    Raises:
        NetError: the net or one of its files cannot be used.
    """

    def __init__(
        self,
        model: Model,
        phase: Phase = "TEST",
        weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        level: int = 0,
        stages: Iterable[str] = (),
        shapes: Mapping[str, Sequence[int]] | None = None,
        *,
        fuse: bool = True,
        allow_python_layers: bool = False,
        share_with: Net | None = None,
        seed: int | None = None,
        skip_bad_records: bool = False,
        writes_files: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(model, Graph):
            graph = model
        else:
            graph = build_graph(model, phase, level, stages, shapes, allow_python_layers=allow_python_layers)
        if graph.problems:
            raise graph.problems[0]
        prepare(graph, writes_files=writes_files)
        first_seed = seed if seed is not None else int(torch.randint(2**62, ()))
        self.run_state = RunState(first_seed, skip_bad_records=skip_bad_records, writes_files=writes_files)
        self.weights = make_weights(graph, share_with._by_layer() if share_with is not None else {}, self.run_state)
        self._fuse = fuse
        self.train(graph.phase == "TRAIN")
        # By mode; that of the other mode is built when it is first needed.
        self._forms = {self.training: Form.of(in_phase(graph, graph.phase), self.run_state, fuse=fuse)}
        self.feeders: dict[str, Feeder] = {}  # by node id, as files repeat layer names
        self._positions: dict[str, int] = {}  # batches to skip in the sources of a copied net, by node id
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
        """The graph as written, with its layers in the mode that `train()` or `eval()` has set."""
        return self._form.graph

    @property
    def fused_graph(self) -> Graph:
        """The optimized graph that runs instead of `graph`, except for `blobs`."""
        return self._form.optimized

    @property
    def _form(self) -> Form:
        if self.training not in self._forms:
            other = in_phase(self._forms[not self.training].graph, "TRAIN" if self.training else "TEST")
            self._forms[self.training] = Form.of(other, self.run_state, fuse=self._fuse)
        return self._forms[self.training]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or a pickle: without programs, open sources and files.

        The copy opens its sources when it pulls its first batch, and continues after the batches delivered here.
        """
        positions = {**self._positions, **{node: feeder.batches for node, feeder in self.feeders.items()}}
        built_mode = self.graph.phase == "TRAIN"
        empty = {"_compiled": {}, "_sources": {}, "_forms": {built_mode: self._forms[built_mode]}, "feeders": {}}
        return {**vars(self), **empty, "_positions": positions}

    def extra_repr(self) -> str:
        """Return the listing of the graph, for printing."""
        return str(self.graph)

    # Parameters

    def _by_layer(self) -> dict[tuple[str, int], Tensor]:
        """Every tensor by layer name and blob index; a shared one has several keys."""
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
        """The parameters of every layer that has some, by layer name; shared ones are the same object.

        A layer that shares with PERMISSIVE in another shape has a view of the owner's values and gradient.
        """
        return {node.name: [self._used(use) for use in node.params] for node in self.graph.nodes if node.params}

    def _used(self, use: ParamUse) -> Tensor:
        tensor = self.weights[use.param.id]
        if use.shape is None or use.shape == tuple(tensor.shape):
            return tensor
        view = tensor.detach().view(use.shape)
        if tensor.grad is not None:
            view.grad = tensor.grad.view(use.shape)
        return view

    # Running

    def forward(self, /, **blobs: Any) -> dict[str, Tensor]:
        """Return every output blob and every blob with a loss weight, by name.

        Layers that lack a bottom, a label for example, are skipped and logged.

        Args:
            blobs: Tensors or arrays of any batch size. The next batch of a data layer is pulled, unless one of its
                blobs or a blob computed from them is passed.
        """
        inputs = self._as_tensors(blobs)
        if self._data_nodes(frozenset(inputs)):
            inputs.update(self.pull(inputs))
        outputs = self._run(inputs, every_blob=False)
        self.run_state.draw += 1  # the next pass draws other numbers; a Solver sets the number of a pass itself
        return outputs

    def train_as_built(self) -> None:
        """Set the mode that the net began with: training in phase TRAIN, evaluation in phase TEST."""
        trains = self.graph.phase == "TRAIN"
        if self.training != trains:
            self.train(trains)

    def run_as(self, *, autocast: torch.dtype | None = None, compiled: bool = False) -> None:
        """Set the type of torch.autocast, and whether torch.compile compiles the whole pass.

        On a GPU a compiled pass is replayed from CUDA graphs, so batches should have one shape.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self._compiler = functools.partial(torch.compile, mode=mode) if compiled else None
        self._autocast = autocast
        self._compiled.clear()

    def blobs(self, /, **blobs: Any) -> dict[str, Tensor]:
        """Return every blob, by `Graph.output_name`; the net runs as written, and writes no files."""
        inputs = self._as_tensors(blobs)
        inputs.update(self.pull(inputs))
        with self.run_state.writing_nothing():
            return self._run(inputs, every_blob=True)

    def loss(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of `loss_weight * blob.sum()` over the blobs of `outputs` with a loss weight, a scalar."""
        terms = []
        for name, weight in self._loss_terms:
            if name in outputs:  # without operations that change nothing, which a small net would notice
                total = outputs[name].sum() if outputs[name].dim() else outputs[name]
                terms.append(total * weight if weight != 1 else total)
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0] if terms else torch.zeros(())

    def pull(self, names: Collection[str] = ()) -> dict[str, Tensor]:
        """Return the next batch of every data layer, unless one of its blobs or a blob computed from them is named."""
        batch: dict[str, Tensor] = {}
        for node in self._data_nodes(frozenset(names)):
            assert isinstance(node.layer, DataLayer)  # as `_data_nodes` returns them
            try:
                feeder = self.feeders.get(node.id)
                if feeder is None:
                    feeder = self.feeders[node.id] = node.layer.open(self.run_state)
                    feeder.skip(self._positions.pop(node.id, 0))
                tensors = feeder.next_batch()
            except NetError as problem:
                raise problem.at(location=node.location, layer=node.name) from None
            for top, tensor in zip(node.tops, tensors, strict=True):
                # A GPU copies from pinned memory while the program continues.
                on_gpu = self.device.type == "cuda"
                batch[top.name] = (tensor.pin_memory() if on_gpu else tensor).to(self.device, non_blocking=on_gpu)
        return batch

    def close(self) -> None:
        """Close the sources of data layers, and the files that layers write."""
        self._positions.clear()
        while self.feeders:
            self.feeders.popitem()[1].close()
        while self.run_state.files:
            self.run_state.files.popitem()[1].close()

    @property
    def device(self) -> torch.device:
        """The device of the parameters; the CPU for a net without any."""
        return self.weights[self.graph.params[0].id].device if self.graph.params else torch.device("cpu")

    def _as_tensors(self, blobs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the blobs of a caller as tensors on the net's device and of its type."""
        weights = self._fast_weights()
        first = weights[self._param_ids[0]] if self._param_ids else None
        # A net without parameters runs on the device of its blobs.
        device, dtype = (first.device, first.dtype) if first is not None else (None, None)
        tensors = {}
        for name, value in blobs.items():
            if name not in self._blob_names:
                raise GraphError(f"the net has no blob {quoted(name)}{did_you_mean(name, self._blob_names)}")
            try:
                tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
            except (TypeError, ValueError):
                raise GraphError(
                    f"blob {quoted(name)} is given as {type(value).__name__}; give a tensor or an array of numbers"
                ) from None
            if dtype is None and not tensor.is_floating_point():
                tensor = tensor.to(torch.get_default_dtype())
            is_placed = tensor.dtype is dtype and tensor.device == device
            tensors[name] = tensor if is_placed else tensor.to(device=device, dtype=dtype)
        return tensors

    def _fast_weights(self) -> Weights:
        """Return `weights`, for which torch searches three places: a small net would notice."""
        return cast(Weights, self._modules["weights"])

    def _data_nodes(self, names: frozenset[str]) -> tuple[Node, ...]:
        """Return the data layers of which no blob, nor one computed from them, is named."""
        if names not in self._sources:
            blobs = [top for node in self.graph.nodes for top in node.tops if top.name in names]
            ids = Ancestry(self.graph.nodes).before(*blobs)
            self._sources[names] = tuple(
                node for node in self.graph.nodes if isinstance(node.layer, DataLayer) and node.id not in ids
            )
        return self._sources[names]

    def _run(self, blobs: Mapping[str, Tensor], *, every_blob: bool) -> dict[str, Tensor]:
        key = (frozenset(blobs), every_blob, self.training)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(blobs, every_blob=every_blob)
        weights = self._fast_weights()
        inputs = [*map(blobs.__getitem__, compiled.inputs), *map(weights.__getitem__, self._param_ids)]
        try:
            if self._autocast is None:
                values = compiled.call(*inputs)
            else:
                with torch.autocast(self.device.type, self._autocast):
                    values = compiled.call(*inputs)
        except (GraphError, RuntimeError, IndexError, ValueError) as error:
            raise self._explained(blobs, error) from error
        return dict(zip(compiled.outputs, values, strict=True))

    def _compile(self, names: Collection[str], *, every_blob: bool) -> _Compiled:
        form = self._form
        plan = make_plan(form.graph, names)
        as_written = every_blob or form.must_run_as_written(plan)
        graph, modules = (form.graph, form.modules) if as_written else (form.optimized, form.optimized_modules)
        weighted = [top for top, _ in self.graph.weighted_tops()]
        blobs = [top for node in self.graph.nodes for top in node.tops] if every_blob else self._outputs(plan)
        outputs = [blob for blob in dict.fromkeys([*blobs, *weighted]) if blob.id in plan.available]
        if not outputs and (self.graph.outputs or weighted):
            raise self._nothing_to_compute(names)
        if plan.skipped:
            skipped = ", ".join(quoted(node.name) for node in plan.skipped)
            logger.warning("skipped layers that lack an input: %s", skipped)
        by_key = {form.graph.output_name(blob): blob for blob in outputs}
        program = build_program(graph, make_plan(graph, names), list(by_key.values()), modules)
        call = self._compiler(program) if self._compiler is not None else without_module_calls(program)
        return _Compiled(tuple(blob.name for blob in plan.inputs), tuple(by_key), program, call)

    def _nothing_to_compute(self, names: Collection[str]) -> NetError:
        sources = [node for node in self.graph.nodes if node.is_source]
        inputs = ", ".join(quoted(top.name) for node in sources for top in node.tops) or "none"
        if names or not sources:
            fault = f"nothing can be computed from {', '.join(map(quoted, names)) or 'nothing'}"
            return GraphError(f"{fault}; the net's inputs are {inputs}")
        fault = f"its blobs have no data; pass them when the net is called ({inputs}), or use a data layer"
        return GraphError(fault, location=sources[0].location, layer=sources[0].name)

    def _outputs(self, plan: Plan) -> list[Blob]:
        """Return the blobs that no node of the plan reads, in alphabetical order: features if the loss is skipped."""
        read = {bottom.id for node in plan.nodes for bottom in node.bottoms}
        blobs = [*self.graph.outputs, *(top for node in plan.nodes for top in node.tops if not top.automatic)]
        return sorted((blob for blob in dict.fromkeys(blobs) if blob.id not in read), key=lambda b: b.name.encode())

    def _explained(self, blobs: Mapping[str, Tensor], error: Exception) -> NetError:
        """Return the cause of a failed forward pass: the first layer that the shapes of the inputs do not fit."""
        shapes: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in blobs.items()}
        for node in make_plan(self.graph, blobs).nodes:
            assert isinstance(node.layer, Layer)  # a net with unknown layers is not built
            bottoms = [shapes[bottom.id] for bottom in node.bottoms]
            try:
                param_shapes = node.layer.param_shapes(bottoms)
                tops = node.layer.top_shapes(bottoms)
            except NetError as problem:
                return problem.at(location=node.location, layer=node.name)
            for use, shape in zip(node.params, param_shapes, strict=True):
                if tuple(shape) != use.shape:
                    expected = ", ".join(str(bottom.shape) for bottom in node.bottoms)
                    return GraphError(
                        f"its {use.role} has shape {use.shape}, but bottoms of shape {bottoms} need {tuple(shape)}; "
                        f"the net was built for bottoms of shape {expected}",
                        location=node.location,
                        layer=node.name,
                    )
            shapes.update({top.id: tuple(shape) for top, shape in zip(node.tops, tops, strict=True)})
        return error if isinstance(error, NetError) else GraphError(f"the forward pass failed: {error}")

    # Weights files

    def load_weights(self, path: str | os.PathLike[str], *, skip_mismatched: bool = False) -> Any:
        """Load weights by layer name, and return a report of what was loaded, missing, ignored and skipped.

        With `skip_mismatched` layers whose blobs have other shapes in the file are left unchanged.
        """
        from siamese_proto.weights import match_weights, read_weights

        values, report = match_weights(self.graph, read_weights(path), skip_mismatched=skip_mismatched)
        with torch.no_grad():
            for param_id, value in values.items():
                self.weights[param_id].copy_(torch.from_numpy(np.asarray(value, order="C")))
        return report

    def save_weights(self, path: str | os.PathLike[str], *, diffs: bool = False) -> None:
        """Write a weights file in the format of its suffix. With `diffs` files of Caffe contain the gradients too."""
        from siamese_proto.weights import write_weights

        values = {name: tensor.detach().cpu().numpy() for name, tensor in self.tensors.items()}
        grads = {name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in self.tensors.items() if diffs}
        gradients = {name: grad.detach().cpu().numpy() for name, grad in grads.items()}
        write_weights(path, self.graph, values, diffs=gradients if diffs else None)
