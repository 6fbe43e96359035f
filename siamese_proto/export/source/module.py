"""Write a graph as readable PyTorch source."""

import ast
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from siamese_proto.export.source.classes import Class, common_names, docstring, ends, lines_of, result_type, tower_class
from siamese_proto.export.source.helpers import Import, helper_source
from siamese_proto.export.source.names import VARIABLES, class_name, shortened, text
from siamese_proto.export.source.planning import Call, Plan, Region, make_plan
from siamese_proto.export.source.statements import Scope, function, statement
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.torch_source import literal

_READ_WEIGHTS = "functional.weights.read_weights"
_IMPORTS: dict[str, Import] = {
    "torch": ("torch", ""),
    "Tensor": ("torch", "Tensor"),
    "nn": ("torch", "nn"),
    "functional": ("torch.nn", "functional"),
    "sys": ("sys", ""),
    "Path": ("pathlib", "Path"),
}


@dataclass(frozen=True)
class Ported:
    """A net as PyTorch source."""

    source: str
    class_name: str
    inputs: Mapping[str, str]  # blob -> argument of forward
    outputs: tuple[str, ...]  # keys of what forward returns; a single output may be returned without a key
    keys: Mapping[str, str]  # parameter id -> its name in the state_dict


def emit(graph: Graph) -> str:
    """Return the source of a Python module that needs only torch; see `port`."""
    return port(graph).source


def port(graph: Graph) -> Ported:
    """Write a net as PyTorch source: named modules, one class for the towers of a twin, shapes in comments.

    Run as a program, the source loads the weights next to it and prints the shapes of its outputs for a random batch.
    It computes the phase of the graph: eval mode for TEST, train mode for TRAIN.

    Raises:
        NetError: The net cannot run, or a layer has no plain PyTorch form.
    """
    plan = make_plan(graph)
    names = dict.fromkeys(helper for source in plan.sources.values() for helper in source.helpers)
    helpers, imports = helper_source([*names, _READ_WEIGHTS])
    defined = frozenset(name for helper in helpers for name in _defined(helper))
    writer = _Writer(plan, defined)
    classes = writer.classes()
    main = writer.main()
    body = "\n\n\n".join([*classes, *helpers, main, 'if __name__ == "__main__":\n    main()'])
    parts = [writer.title(), _imports(body, imports), body]
    return Ported(
        source="\n\n".join(parts) + "\n",
        class_name=writer.net.name,
        inputs=dict(zip((blob.name for blob in plan.inputs), writer.scope.inputs, strict=True)),
        outputs=tuple(writer.key(blob) for blob in plan.outputs),
        keys=writer.net.params,
    )


class _Writer:
    """Writes the classes of a net, the largest last."""

    def __init__(self, plan: Plan, defined: frozenset[str]) -> None:
        self.plan = plan
        self.variables = VARIABLES | {name.lower() for name in defined}
        self.net = Class(class_name(plan.graph.name, defined), plan, self.variables)
        self.key = plan.graph.output_name
        self.scope = Scope(self.variables, plan.inputs, plan.batch)
        self.weights = {
            top.id: weight
            for node in plan.nodes
            for top, weight in zip(node.tops, node.loss_weights, strict=True)
            if weight != 0
        }
        first_output = plan.outputs[0]
        self.is_single = len(plan.outputs) == 1 and (
            not self.weights or (self.weights == {first_output.id: 1.0} and first_output.shape == ())
        )

    def classes(self) -> list[str]:
        """Return the texts of the classes of towers and of the net."""
        texts: list[str] = []
        calls: dict[int, list[str]] = {}
        for region in self.plan.regions:
            tower, source = self._tower(region, len(texts) + 1)
            texts.append(source)
            calls[id(region)] = self._hold(region, tower)
        shared = [region for region in self.plan.regions if region.shared]
        methods = []
        if shared:
            main_tower = max(shared, key=lambda region: len(region.rows))
            methods.append(self._forward_once(main_tower, calls[id(main_tower)][0]))
            calls[id(main_tower)] = ["self.forward_once"] * len(main_tower.rows[0])
        inside = {node.id for region in self.plan.regions for row in region.rows for node in row}
        users: defaultdict[tuple[str, ...], list[Node]] = defaultdict(list)  # of a module, by its parameters
        for node in self.plan.nodes:
            if node.params and node.id in self.plan.modular:
                users[tuple(use.param.id for use in node.params)].append(node)
        for node in self.plan.nodes:
            if node.id not in inside:
                self.net.add_layer(node, users.get(tuple(use.param.id for use in node.params), [node]))
        methods.append(self._forward(calls))
        if self.weights and not self.is_single:
            methods.append(self._total_loss())
        doc = docstring(f"{self.described()}.", self.scope.signature(self.plan.inputs, self.plan.outputs))
        return [*texts, self.net.written(doc, methods)]

    def _tower(self, region: Region, number: int) -> tuple[Class, str]:
        name = "Tower" if number == 1 else f"Tower{number}"
        return tower_class(region, name, self.plan, self.variables)

    def _hold(self, region: Region, of_tower: Class) -> list[str]:
        """Add the modules of a region to the net; return the callable of each tower."""
        if region.shared:
            name = self.net.attributes.new("tower")
            self.net.lines += statement(f"self.{name} = {of_tower.name}()", 8)
            self.net.hold(of_tower.params, name)
            return [f"self.{name}"] * len(region.rows[0])
        names = []
        for tower in range(len(region.rows[0])):
            name = self.net.attributes.new(f"tower_{tower + 1}")
            self.net.lines += statement(f"self.{name} = {of_tower.name}()", 8)
            same = {
                first.param.id: use.param.id
                for row in region.rows
                for first, use in zip(row[0].params, row[tower].params, strict=True)
            }
            self.net.hold({same[param]: inner for param, inner in of_tower.params.items()}, name)
            names.append(f"self.{name}")
        return names

    def _forward_once(self, region: Region, called: str) -> list[str]:
        inputs, outputs = ends(Call(region, 0))
        scope = Scope(self.variables, inputs, self.plan.batch, common_names(region))
        result = result_type(len(outputs))
        body = statement(f"return {called}({', '.join(scope.inputs)})", 8)
        return function("forward_once", scope.inputs, result, "Run one branch: all of them are this one tower.", body)

    def _forward(self, calls: dict[int, list[str]]) -> list[str]:
        lines = lines_of(self.net, self.scope, self.plan.steps, self.plan.outputs, calls)
        body = self.scope.written(lines, self.plan.outputs, returned=self.is_single)
        if self.is_single:
            return function("forward", self.scope.inputs, "Tensor", "Run the net.", body)
        values = [self.scope.variables[blob.id] for blob in self.plan.outputs]
        entries = (f"{text(self.key(blob))}: {value}" for blob, value in zip(self.plan.outputs, values, strict=True))
        body += statement(f"return {{{', '.join(entries)}}}", 8)
        doc = "Run the net; returns its outputs by the names of their blobs."
        return function("forward", self.scope.inputs, "dict[str, Tensor]", doc, body)

    def _total_loss(self) -> list[str]:
        terms = []
        for blob in self.plan.outputs:
            if blob.id in self.weights:
                value = f"outputs[{text(self.key(blob))}]" + ("" if blob.shape == () else ".sum()")
                weight = self.weights[blob.id]
                terms.append(value if weight == 1 else f"{literal(weight)} * {value}")
        head = "    def total_loss(self, outputs: dict[str, Tensor]) -> Tensor:"
        doc = '        """The sum of the losses, each times its loss_weight."""'
        if len(terms) == 1:
            return [head, doc, *statement(f"return {terms[0]}", 8)]
        return [head, doc, *statement(f"return torch.stack([{', '.join(terms)}]).sum()", 8)]

    def title(self) -> str:
        """Return the docstring of the module."""
        graph = self.plan.graph
        origin = f"{shortened(os.path.basename(graph.file))}, " if os.path.exists(graph.file) else ""
        return (
            f'"""{self.described()} as PyTorch modules.\n\n'
            f"Written by siamese-proto from {origin}phase {graph.phase}. It needs only torch. Run as a program, it\n"
            "loads the weights next to it with the same name, or those named on the command line, and prints the\n"
            'shapes of the outputs for a random batch.\n"""'
        )

    def described(self) -> str:
        """Return the net with its name, if it has one."""
        return f"The net {shortened(self.plan.graph.name)}" if self.plan.graph.name else "The net"

    def main(self) -> str:
        """Return the function that runs the net on a random batch."""
        batch = []
        for blob, name in zip(self.plan.inputs, self.scope.inputs, strict=True):
            sizes = ", ".join(map(str, blob.shape)) if blob.shape else "()"
            batch.append(f"{name}=torch.rand({sizes})")
        mode = "eval" if self.plan.graph.phase == "TEST" else "train"
        head = [
            "def main() -> None:",
            '    """Run the net on a random batch, with its weights if they exist."""',
            '    weights = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".safetensors")',
            f"    net = {self.net.name}().{mode}()",
            "    if len(sys.argv) > 1 or weights.exists():",
            "        net.load_state_dict(read_weights(weights))",
            "    with torch.no_grad():",
        ]
        if self.is_single:
            blob = self.plan.outputs[0]
            shown = [f"    print({text(self.key(blob))}, tuple(output.shape))"]
            return "\n".join([*head, *statement(f"output = net({', '.join(batch)})", 8), *shown])
        shown = ["    for name, output in outputs.items():", "        print(name, tuple(output.shape))"]
        return "\n".join([*head, *statement(f"outputs = net({', '.join(batch)})", 8), *shown])


def _defined(source: str) -> Sequence[str]:
    return [
        name
        for node in ast.parse(source).body
        for name in (
            [node.name]
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            else [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        )
    ]


def _imports(body: str, of_helpers: set[Import]) -> str:
    """Return the imports that the text needs, in the order of isort."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    needed = of_helpers | {target for name, target in _IMPORTS.items() if name in used}
    blocks = ["from __future__ import annotations"]
    for is_torch in (False, True):
        chosen = sorted(target for target in needed if target[0].startswith("torch") == is_torch)
        lines = [f"import {module}" for module, name in chosen if not name]
        members = defaultdict(list)
        for module, name in chosen:
            if name:
                members[module].append(name)
        lines += [
            f"from {module} import {', '.join(sorted(names, key=lambda name: (name[0].islower(), name)))}"
            for module, names in sorted(members.items())
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
