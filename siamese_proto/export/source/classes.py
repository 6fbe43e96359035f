"""Write modules as classes: the net, and one class for each kind of tower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from siamese_proto.export.source.names import MODULE_ATTRIBUTES, OWN_ATTRIBUTES, Names, comment, common, text
from siamese_proto.export.source.planning import Call, Plan, Region, Step, shape_of, takes_its_own_gradient
from siamese_proto.export.source.statements import Line, Scope, function, statement
from siamese_proto.graph.ir import Blob, Node, ParamUse

Calls = Mapping[int, Sequence[str]]  # by the identity of a region, the callable of each of its towers


@dataclass
class Class:
    """A class in progress: its attributes, and the names of the parameters of its layers."""

    name: str
    plan: Plan
    variables: frozenset[str]  # names that its functions must not use
    attributes: Names = field(default_factory=lambda: Names(MODULE_ATTRIBUTES | OWN_ATTRIBUTES))
    lines: list[str] = field(default_factory=list)  # of __init__
    modules: dict[tuple[str, ...], str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)  # parameter id -> path, `conv1.weight`

    def add_layer(self, node: Node, alike: Sequence[Node], *, in_towers: bool = False) -> None:
        """Add the module of a layer, or its parameters if it has none; `alike` are the layers that it represents."""
        if node.id in self.plan.modular:
            if self._key(node) not in self.modules:
                self._add_module(node, alike, in_towers=in_towers)
            return
        for use, role in zip(node.params, [use.role for use in node.params], strict=True):
            if use.param.id not in self.params and self.plan.owners[use.param.id] is node:
                self._add_parameter(node, use, role)
        memory = self.plan.sources[node.id].memory
        if memory:
            self.modules[(node.id,)] = self.attributes.new(node.name or node.type)
            self.lines += statement(f"self.{self.modules[(node.id,)]} = {memory}", 8, comment([node.name]))

    def expressions(self, node: Node) -> tuple[str, ...]:
        """Return the expressions of the tops of a layer, in which `{0}`, `{1}`, .. are the bottoms."""
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
        """Record that the module at `path` has these parameters."""
        self.params.update({param: f"{path}.{inner}" for param, inner in params.items()})

    def written(self, doc: Sequence[str], methods: Sequence[Sequence[str]]) -> str:
        """Return the text of the class."""
        head = [f"class {self.name}(nn.Module):", *doc, ""]
        init = ["    def __init__(self) -> None:", "        super().__init__()", *self.lines] if self.lines else []
        parts = [init, *methods] if init else list(methods)
        return "\n".join([*head, *"\n\n".join("\n".join(part) for part in parts).split("\n")])

    def _key(self, node: Node) -> tuple[str, ...]:
        """Return the key of the module of a layer: layers with the same parameters have one module."""
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


def lines_of(owner: Class, scope: Scope, steps: Sequence[Step], outputs: Sequence[Blob], calls: Calls) -> list[Line]:
    """Return one line for each step; `outputs` are read after them."""
    read = {blob.id for step in steps for blob in ends(step)[0]} | {blob.id for blob in outputs}
    lines: list[Line] = []
    for step in steps:
        bottoms, tops = ends(step)
        if isinstance(step, Call):
            arguments = ", ".join(f"{{{index}}}" for index in range(len(bottoms)))
            expressions: tuple[str, ...] = (f"{calls[id(step.region)][step.tower]}({arguments})",)
            cut: tuple[bool, ...] = (False,) * len(bottoms)
            name = ""
        else:
            expressions, cut = owner.expressions(step), _cut(step, owner.plan)
            # The name of a module is in the comment of its definition.
            name = "" if step.id in owner.plan.modular else f"{comment([step.name])}: "
        groups = [(top,) for top in tops] if len(expressions) == len(tops) else [tuple(tops)]
        for group, expression in zip(groups, expressions, strict=True):
            targets = tuple(top if top.id in read else None for top in group)
            if any(targets):
                remark = name + ", ".join(scope.shape(top.shape) for top in group)
                lines.append(Line(targets, expression, tuple(bottoms), cut, remark))
    return lines


def ends(step: Step) -> tuple[Sequence[Blob], Sequence[Blob]]:
    """Return the inputs and outputs of a step."""
    if isinstance(step, Call):
        inputs, outputs = ([blobs[step.tower] for blobs in each] for each in (step.region.inputs, step.region.outputs))
        return inputs, outputs
    return step.bottoms, step.tops


def _cut(node: Node, plan: Plan) -> tuple[bool, ...]:
    """Return which bottoms to detach. Labels are detached only if they depend on something that is learned."""
    return tuple(
        cut and (index not in node.labels or blob.id in plan.learned)
        for index, (blob, cut) in enumerate(zip(node.bottoms, node.cut, strict=True))
    )


def tower_class(region: Region, name: str, plan: Plan, variables: frozenset[str]) -> tuple[Class, str]:
    """Return the class of the towers of a region and its text; its parameters are those of the first tower."""
    tower = Class(name, plan, variables)
    for row in region.rows:
        tower.add_layer(row[0], row, in_towers=True)
    inputs, outputs = ends(Call(region, 0))
    scope = Scope(variables, inputs, plan.batch, common_names(region))
    body = scope.written(lines_of(tower, scope, [row[0] for row in region.rows], outputs, {}), outputs, returned=True)
    count = len(region.rows[0])
    branches = "both branches" if count == 2 else f"all {count} branches"
    own = "for" if region.shared else "with separate parameters for"
    title = f"The tower {own} {branches} of the net."
    doc = docstring(title, scope.signature(inputs, outputs))
    forward = function("forward", scope.inputs, result_type(len(outputs)), "Run one branch.", body)
    return tower, tower.written(doc, [forward])


def common_names(region: Region) -> dict[str, str]:
    """Return the names of blobs in the class of a tower: the common part of their names in all towers."""
    tops_of = {tops[0].id: tops for row in region.rows for tops in zip(*(node.tops for node in row), strict=True)}
    names = {blob: common([top.name for top in tops], tops[0].name) for blob, tops in tops_of.items()}
    return names | {blobs[0].id: common([blob.name for blob in blobs], "x") for blobs in region.inputs}


def result_type(count: int) -> str:
    """Return the result type of a function with this number of results."""
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"


def docstring(title: str, lines: Sequence[str]) -> list[str]:
    """Return the docstring of a class."""
    return [f'    """{title}', "", *(f"    {line}" for line in lines), '    """']
