"""Which parameters are one: layers that give a parameter the same name share its tensor (net.cpp: AppendParam)."""

from __future__ import annotations

from dataclasses import dataclass

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import Param, ParamRole, ParamUse, Shape
from siamese_proto.graph.sizes import UNKNOWN, Sizes
from siamese_proto.proto import schema

_UNNAMED = schema.ParamSpec()
_UNKNOWN = ParamRole("parameter")  # of a layer whose blobs are unknown


@dataclass
class Draft:
    """A parameter while its net is being built: the multipliers may still come from a later user of its name."""

    id: str
    owner: str
    owner_name: str
    index: int
    name: str
    role: ParamRole
    shape: Shape | None
    sizes: Sizes
    lr_mult: float | None
    decay_mult: float | None

    def finished(self) -> Param:
        """The parameter as the graph holds it; a multiplier that nobody gave is 1."""
        return Param(
            id=self.id,
            owner=self.owner,
            owner_name=self.owner_name,
            index=self.index,
            name=self.name,
            role=self.role.role,
            shape=self.shape,
            filler=self.role.filler,
            statistic=self.role.statistic,
            lr_mult=1.0 if self.lr_mult is None else self.lr_mult,
            decay_mult=1.0 if self.decay_mult is None else self.decay_mult,
        )


@dataclass(frozen=True)
class DraftUse:
    """A layer's use of a draft."""

    draft: Draft
    role: str
    shape: Shape | None
    lr_mult: float
    is_owner: bool

    def finished(self, param: Param, *, force_backward: bool) -> ParamUse:
        """The use as the graph holds it. Its own multiplier decides whether it adds to the gradient."""
        takes_gradient = not param.statistic and (force_backward or self.lr_mult != 0)
        return ParamUse(param, self.role, self.shape, self.lr_mult, takes_gradient, self.is_owner)


class Sharing:
    """The table of parameters of a net under construction."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self._by_name: dict[str, Draft] = {}

    def use(
        self,
        node_id: str,
        layer_name: str,
        index: int,
        role: ParamRole,
        shape: Shape | None,
        spec: schema.ParamSpec | None,
        sizes: Sizes = UNKNOWN,
    ) -> DraftUse:
        """Blob `index` of a layer: its own parameter, or that of the first layer which gave the same name.

        `sizes` is what the settings alone say about a shape that is not known.
        Raises GraphError where the owner's shape or multipliers contradict this layer's.
        """
        if role.statistic:
            if spec is not None and spec.lr_mult != 0 and spec.HasField("lr_mult"):
                raise GraphError(
                    f"lr_mult {spec.lr_mult:g} is given for its {role.role}, a statistic that is not learned; "
                    "write lr_mult: 0",
                    field=f"param[{index}].lr_mult",
                )
            name = spec.name if spec is not None else ""
            spec = schema.ParamSpec(name=name, lr_mult=0, decay_mult=0)
        spec = spec or _UNNAMED
        sizes = sizes if shape is None else Sizes(shape)
        draft = self._by_name.get(spec.name) if spec.name else None
        if draft is None:
            return self._own(node_id, layer_name, index, role, shape, spec, sizes)
        if draft.role is _UNKNOWN:
            draft.role, draft.shape, draft.sizes = role, shape, sizes
        _check_shape(draft, index, sizes, spec)
        draft.lr_mult = _merged(draft.lr_mult, spec, "lr_mult", draft, index)
        draft.decay_mult = _merged(draft.decay_mult, spec, "decay_mult", draft, index)
        return DraftUse(draft, role.role, shape, spec.lr_mult, is_owner=False)

    def unchecked_uses(self, node_id: str, message: schema.LayerParameter) -> list[DraftUse]:
        """The uses of a layer at fault or of an unknown type: it shares what it names, whatever its blobs are."""
        while self.drafts and self.drafts[-1].owner == node_id:  # what it owned before its fault was found
            self._by_name.pop(self.drafts.pop().name, None)
        return [self._unchecked_use(node_id, message.name, index, spec) for index, spec in enumerate(message.param)]

    def _unchecked_use(self, node_id: str, layer_name: str, index: int, spec: schema.ParamSpec) -> DraftUse:
        draft = self._by_name.get(spec.name) if spec.name else None
        if draft is None:
            return self._own(node_id, layer_name, index, _UNKNOWN, None, spec, UNKNOWN)
        return DraftUse(draft, draft.role.role, None, spec.lr_mult, is_owner=False)

    def _own(
        self,
        node_id: str,
        layer_name: str,
        index: int,
        role: ParamRole,
        shape: Shape | None,
        spec: schema.ParamSpec,
        sizes: Sizes,
    ) -> DraftUse:
        draft = Draft(
            id=f"{node_id}_{index}",
            owner=node_id,
            owner_name=layer_name,
            index=index,
            name=spec.name,
            role=role,
            shape=shape,
            sizes=sizes,
            lr_mult=spec.lr_mult if spec.HasField("lr_mult") else None,
            decay_mult=spec.decay_mult if spec.HasField("decay_mult") else None,
        )
        self.drafts.append(draft)
        if spec.name:
            self._by_name[spec.name] = draft
        return DraftUse(draft, role.role, shape, spec.lr_mult, is_owner=True)


def _check_shape(draft: Draft, index: int, sizes: Sizes, spec: schema.ParamSpec) -> None:
    """The later layer's own share_mode decides: STRICT wants equal shapes, PERMISSIVE as many values."""
    if not draft.sizes.contradicts(sizes):
        return
    permissive = spec.share_mode == schema.ParamSpec.PERMISSIVE
    counts = draft.sizes.number, sizes.number
    if permissive and (None in counts or counts[0] == counts[1]):
        return
    hint = ""
    if None not in counts and counts[0] == counts[1]:
        hint = "; the counts are equal: share_mode: PERMISSIVE would share them"
    raise GraphError(
        f"cannot share param {quoted(draft.name)} with its owner, layer {quoted(draft.owner_name)}: "
        f"the owner's shape is {draft.sizes}, this layer's is {sizes}{hint}",
        field=f"param[{index}].name",
    )


def _merged(known: float | None, spec: schema.ParamSpec, field: str, draft: Draft, index: int) -> float | None:
    """Nothing given here: what is known holds. Nothing known yet: this layer's value holds for all. Else equal."""
    if not spec.HasField(field):
        return known
    own = spec.lr_mult if field == "lr_mult" else spec.decay_mult
    if known is not None and known != own:
        raise GraphError(
            f"shared param {quoted(draft.name)} has {field} {own:g} here, but {known:g} at its owner, "
            f"layer {quoted(draft.owner_name)}, or at an earlier user; they must be equal",
            field=f"param[{index}].{field}",
        )
    return own
