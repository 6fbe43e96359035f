"""Shared parameters: layers that give a parameter the same name share its tensor (net.cpp: AppendParam)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import Param, ParamRole, ParamUse, Shape
from siamese_proto.graph.sizes import UNKNOWN, Sizes
from siamese_proto.proto import schema


@dataclass
class _Draft:
    """A parameter, and what a later layer that uses its name may still determine.

    Attributes:
        param: The parameter, with the multipliers of its owner.
        sizes: What is known about its shape.
        has_role: Whether the role is known; it is unknown for layers of an unknown type.
        lr_mult: The multiplier in the file; None if no layer gives one.
        decay_mult: As `lr_mult`.
    """

    param: Param
    sizes: Sizes
    has_role: bool
    lr_mult: float | None
    decay_mult: float | None

    def merge(self, spec: schema.ParamSpec, index: int) -> None:
        """Take multipliers that no layer gave yet; raise GraphError for multipliers that differ."""
        for field in ("lr_mult", "decay_mult"):
            if not spec.HasField(field):
                continue
            earlier, own = getattr(self, field), getattr(spec, field)
            if earlier is not None and earlier != own:
                raise GraphError(
                    f"shared param {quoted(spec.name)} has {field} {own:g} here, but {earlier:g} at its owner, "
                    f"layer {quoted(self.param.owner_name)}, or at an earlier user; they must be equal",
                    field=f"param[{index}].{field}",
                )
            setattr(self, field, own)


class Sharing:
    """The parameters of a net while it is built."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._by_name: dict[str, _Draft] = {}

    def use(
        self,
        node_id: str,
        layer_name: str,
        index: int,
        role: ParamRole,
        shape: Shape | None,
        spec: schema.ParamSpec | None,
        sizes: Sizes = UNKNOWN,
    ) -> ParamUse:
        """Return the use of blob `index` by a layer: its own parameter, or that of the first layer with the same name.

        Args:
            sizes: What the settings say about an unknown shape.

        Raises:
            GraphError: the owner's shape or multipliers contradict those of this layer.
        """
        spec = spec or schema.ParamSpec()
        if role.statistic:
            if spec.lr_mult != 0 and spec.HasField("lr_mult"):
                raise GraphError(
                    f"lr_mult {spec.lr_mult:g} is given for its {role.role}, a statistic that is not learned; "
                    "write lr_mult: 0",
                    field=f"param[{index}].lr_mult",
                )
            spec = schema.ParamSpec(name=spec.name, lr_mult=0, decay_mult=0)
        sizes = sizes if shape is None else Sizes(shape)
        draft = self._by_name.get(spec.name) if spec.name else None
        if draft is None:
            return self._own(node_id, layer_name, index, role, shape, spec, sizes)
        if not draft.has_role:
            draft.param = replace(
                draft.param, role=role.role, shape=shape, filler=role.filler, statistic=role.statistic
            )
            draft.has_role, draft.sizes = True, sizes
        _check_shape(draft, index, sizes, spec)
        draft.merge(spec, index)
        return ParamUse(draft.param, role.role, shape, spec.lr_mult, takes_gradient=False, is_owner=False)

    def unchecked_uses(self, node_id: str, message: schema.LayerParameter) -> list[ParamUse]:
        """Return the uses of a layer at fault or of an unknown type: it shares what it names."""
        while self._drafts and self._drafts[-1].param.owner == node_id:  # added before the fault was detected
            self._by_name.pop(self._drafts.pop().param.name, None)
        uses = []
        for index, spec in enumerate(message.param):
            draft = self._by_name.get(spec.name) if spec.name else None
            if draft is None:
                uses.append(self._own(node_id, message.name, index, None, None, spec, UNKNOWN))
            else:
                param = draft.param
                uses.append(ParamUse(param, param.role, None, spec.lr_mult, takes_gradient=False, is_owner=False))
        return uses

    def _own(
        self,
        node_id: str,
        layer_name: str,
        index: int,
        known_role: ParamRole | None,
        shape: Shape | None,
        spec: schema.ParamSpec,
        sizes: Sizes,
    ) -> ParamUse:
        role = known_role or ParamRole("parameter")
        param = Param(
            id=f"{node_id}_{index}",
            owner=node_id,
            owner_name=layer_name,
            index=index,
            name=spec.name,
            role=role.role,
            shape=shape,
            filler=role.filler,
            statistic=role.statistic,
            lr_mult=spec.lr_mult,
            decay_mult=spec.decay_mult,
        )
        draft = _Draft(param, sizes, known_role is not None, lr_mult=None, decay_mult=None)
        draft.merge(spec, index)
        self._drafts.append(draft)
        if spec.name:
            self._by_name[spec.name] = draft
        return ParamUse(param, role.role, shape, spec.lr_mult, takes_gradient=False, is_owner=True)

    def params(self) -> tuple[Param, ...]:
        """Return every parameter, when all layers are added; a multiplier that no layer gives is 1."""
        return tuple(
            replace(
                draft.param,
                lr_mult=1.0 if draft.lr_mult is None else draft.lr_mult,
                decay_mult=1.0 if draft.decay_mult is None else draft.decay_mult,
            )
            for draft in self._drafts
        )


def settled(uses: Sequence[ParamUse], params: dict[str, Param], *, force_backward: bool) -> tuple[ParamUse, ...]:
    """Return uses of the finished parameters. The multiplier of the use determines whether it adds to the gradient."""
    return tuple(
        replace(
            use,
            param=params[use.param.id],
            takes_gradient=not params[use.param.id].statistic and (force_backward or use.lr_mult != 0),
        )
        for use in uses
    )


def _check_shape(draft: _Draft, index: int, sizes: Sizes, spec: schema.ParamSpec) -> None:
    """Check the later layer's share_mode: STRICT expects equal shapes, PERMISSIVE equal numbers of values."""
    if not draft.sizes.contradicts(sizes):
        return
    counts = draft.sizes.number, sizes.number
    same_count = None not in counts and counts[0] == counts[1]
    if spec.share_mode == schema.ParamSpec.PERMISSIVE and (None in counts or same_count):
        return
    hint = "; the counts are equal: share_mode: PERMISSIVE would share them" if same_count else ""
    raise GraphError(
        f"cannot share param {quoted(spec.name)} with its owner, layer {quoted(draft.param.owner_name)}: "
        f"the owner's shape is {draft.sizes}, this layer's is {sizes}{hint}",
        field=f"param[{index}].name",
    )
