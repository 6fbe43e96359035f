"""Modules as classes: the net itself, and one for each kind of tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from siamese_proto.export.source.names import MODULE_ATTRIBUTES, OWN_ATTRIBUTES, Names, comment, common, text
from siamese_proto.export.source.planning import Call, Plan, Region, Step, shape_of, takes_its_own_gradient
from siamese_proto.export.source.statements import Line, Scope, function, statement
from siamese_proto.graph.ir import Blob, Node, ParamUse

Calls = Mapping[int, Sequence[str]]  # by the identity of a region, what is called for each of its towers


@dataclass
class Class:
    """A class under construction: its attributes, and under which names it holds the parameters of its layers."""

    name: str
    plan: Plan
    variables: frozenset[str]  # names that its functions must leave alone
    attributes: Names = field(default_factory=lambda: Names(MODULE_ATTRIBUTES | OWN_ATTRIBUTES))
    lines: list[str] = field(default_factory=list)  # of __init__
    modules: dict[tuple[str, ...], str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)  # parameter id -> path, `conv1.weight`

    def add_layer(self, node: Node, alike: Sequence[Node], *, in_towers: bool = False) -> None:
        """Make the layer's module, or its parameters where it has none; `alike` are the layers it stands for."""
        if node.id in self.plan.modular:
            if self._key(node) not in self.modules:
                self._add_module(node, alike, in_towers=in_towers)
            return
        for use, role in zip(node.params, _roles(node), strict=True):
            if use.param.id not in self.params and self.plan.owners[use.param.id] is node:
                self._add_parameter(node, use, role)
        memory = self.plan.sources[node.id].memory
        if memory:
            self.modules[(node.id,)] = self.attributes.new(node.name or node.type)
            self.lines += statement(f"self.{self.modules[(node.id,)]} = {memory}", 8, comment([node.name]))

    def expressions(self, node: Node) -> tuple[str, ...]:
        """What computes the layer's tops: `{0}`, `{1}`, .. stand for the bottoms."""
        source = self.plan.sources[node.id]
        if node.id in self.plan.modular:
            return tuple(top.replace("{module}", f"self.{self.modules[self._key(node)]}") for top in source.tops)
        expressions = list(source.apart if node.params else source.tops)
        if source.memory:
            expressions = [each.replace("{memory}", f"self.{self.modules[(node.id,)]}") for each in expressions]
        for index, use in enumerate(node.params):
            expressions = [each.replace(f"{{p{index}}}", self._parameter(use)) for each in expressions]
        return tuple(expressions)

    def hold(self, params: dict[str, str], path: str) -> None:
        """Note that a module at `path` holds these parameters."""
        self.params.update({param: f"{path}.{inner}" for param, inner in params.items()})

    def written(self, doc: Sequence[str], methods: Sequence[Sequence[str]]) -> str:
        """The text of the class."""
        head = [f"class {self.name}(nn.Module):", *doc, ""]
        made = ["    def __init__(self) -> None:", "        super().__init__()", *self.lines] if self.lines else []
        parts = [made, *methods] if made else list(methods)
        return "\n".join([*head, *"\n\n".join("\n".join(part) for part in parts).split("\n")])

    def _key(self, node: Node) -> tuple[str, ...]:
        """What makes the modules of two layers one: the same parameters. A module without any is nobody else's."""
        if node.params:
            return (self.plan.sources[node.id].module, *(use.param.id for use in node.params))
        return (node.id,)

    def _add_module(self, node: Node, alike: Sequence[Node], *, in_towers: bool) -> None:
        source = self.plan.sources[node.id]
        names = [other.name for other in alike]
        name = self.attributes.new((common(names, node.name) if in_towers else node.name) or node.type)
        self.modules[self._key(node)] = name
        frozen = [inner for use, inner in self._inner(node) if use.param.id in self.plan.frozen]
        whole = bool(frozen) and len(frozen) == len(node.params)
        remark = comment(dict.fromkeys(other.name for other in alike)) + "; lr_mult: 0" * whole
        code = f"self.{name} = {source.module}" + ".requires_grad_(False)" * whole
        self.lines += statement(code, 8, remark)
        for inner in frozen if not whole else ():
            self.lines += statement(f"self.{name}.{inner}.requires_grad_(False)", 8, "lr_mult: 0")
        self.params.update({use.param.id: f"{name}.{inner}" for use, inner in self._inner(node)})

    def _inner(self, node: Node) -> list[tuple[ParamUse, str]]:
        return list(zip(node.params, self.plan.sources[node.id].names, strict=True))

    def _add_parameter(self, node: Node, use: ParamUse, role: str) -> None:
        name = self.attributes.new(f"{node.name or node.type}_{role}")
        self.params[use.param.id] = name
        shape = shape_of(use.param)
        zeros = f"torch.zeros({', '.join(map(str, shape)) if shape else '()'})"
        learned = ", requires_grad=False" if use.param.id in self.plan.frozen else ""
        if use.param.statistic:
            code = f"self.register_buffer({text(name)}, {zeros})"
        else:
            code = f"self.{name} = nn.Parameter({zeros}{learned})"
        self.lines += statement(code, 8, f"{role} of {comment([node.name])}" + "; lr_mult: 0" * bool(learned))

    def _parameter(self, use: ParamUse) -> str:
        shown = f"self.{self.params[use.param.id]}"
        if not takes_its_own_gradient(use, self.plan.frozen):
            shown += ".detach()"
        if use.shape != use.param.shape and use.shape is not None:
            shown += f".view({', '.join(map(str, use.shape))})"
        return shown


def _roles(node: Node) -> list[str]:
    return [use.role for use in node.params]


def lines_of(made: Class, scope: Scope, steps: Sequence[Step], wanted: Sequence[Blob], calls: Calls) -> list[Line]:
    """What the steps compute, one expression each; `wanted` is read behind them."""
    read = {blob.id for step in steps for blob in ends(step)[0]} | {blob.id for blob in wanted}
    lines: list[Line] = []
    for step in steps:
        bottoms, tops = ends(step)
        if isinstance(step, Call):
            arguments = ", ".join(f"{{{index}}}" for index in range(len(bottoms)))
            expressions: tuple[str, ...] = (f"{calls[id(step.region)][step.tower]}({arguments})",)
            cut: tuple[bool, ...] = (False,) * len(bottoms)
            name = ""
        else:
            expressions, cut = made.expressions(step), _cut(step, made.plan)
            # A module's name is told where it is made.
            name = "" if step.id in made.plan.modular else f"{comment([step.name])}: "
        groups = [(top,) for top in tops] if len(expressions) == len(tops) else [tuple(tops)]
        for group, expression in zip(groups, expressions, strict=True):
            kept = tuple(top if top.id in read else None for top in group)
            if any(kept):
                remark = name + ", ".join(scope.shape(top.shape) for top in group)
                lines.append(Line(kept, expression, tuple(bottoms), cut, remark))
    return lines


def ends(step: Step) -> tuple[Sequence[Blob], Sequence[Blob]]:
    """What a step reads and makes."""
    if isinstance(step, Call):
        inputs, outputs = ([blobs[step.tower] for blobs in each] for each in (step.region.inputs, step.region.outputs))
        return inputs, outputs
    return step.bottoms, step.tops


def _cut(node: Node, plan: Plan) -> tuple[bool, ...]:
    """Which bottoms to detach. That labels take no gradient is worth a word only where something learned made them."""
    return tuple(
        cut and (index not in node.labels or blob.id in plan.learned)
        for index, (blob, cut) in enumerate(zip(node.bottoms, node.cut, strict=True))
    )


def tower_class(region: Region, name: str, plan: Plan, variables: frozenset[str]) -> tuple[Class, str]:
    """The class of a region's towers and its text; its parameters are those of the first tower."""
    made = Class(name, plan, variables)
    for row in region.rows:
        made.add_layer(row[0], row, in_towers=True)
    inputs, outputs = ends(Call(region, 0))
    scope = Scope(variables, inputs, plan.batch, common_names(region))
    body = scope.written(lines_of(made, scope, [row[0] for row in region.rows], outputs, {}), outputs, returned=True)
    count = len(region.rows[0])
    branches = "both branches" if count == 2 else f"all {count} branches"
    own = "serves" if region.shared else "is built again, with parameters of its own, for each of"
    title = f"The tower that {own} {branches} of the net."
    doc = docstring(title, scope.signature(inputs, outputs))
    forward = function("forward", scope.inputs, result_type(len(outputs)), "Run one branch.", body)
    return made, made.written(doc, [forward])


def common_names(region: Region) -> dict[str, str]:
    """What the first tower's blobs are called in the class: by what their names have in common in all towers."""
    made = {tops[0].id: tops for row in region.rows for tops in zip(*(node.tops for node in row), strict=True)}
    names = {blob: common([top.name for top in tops], tops[0].name) for blob, tops in made.items()}
    return names | {blobs[0].id: common([blob.name for blob in blobs], "x") for blobs in region.inputs}


def result_type(count: int) -> str:
    """What a function of so many results returns."""
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"


def docstring(title: str, lines: Sequence[str]) -> list[str]:
    """The docstring of a class."""
    return [f'    """{title}', "", *(f"    {line}" for line in lines), '    """']
