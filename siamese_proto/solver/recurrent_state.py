"""What recurrent layers take over into their next pass, in a form that snapshots hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from siamese_proto.layers.base import Layer
from siamese_proto.net.net import Net
from siamese_proto.proto import schema


def export_carried(nets: Sequence[Net]) -> list[schema.CarriedState]:
    """The states of every recurrent layer of the nets; each tensor with its shape, as float32."""
    return [
        schema.CarriedState(
            net=index,
            layer=node.id,
            state=[
                schema.BlobProto(shape=schema.BlobShape(dim=tensor.shape), data=tensor.detach().flatten().tolist())
                for tensor in net.run.carried[node.layer.key]
            ],
        )
        for index, net in enumerate(nets)
        for node in net.graph.nodes
        if isinstance(node.layer, Layer) and node.layer.key in net.run.carried
    ]


def import_carried(nets: Sequence[Net], states: Iterable[schema.CarriedState]) -> None:
    """Take back what `export_carried` gave; layers without a state begin anew, and states without a layer are left."""
    for net in nets:
        net.run.carried.clear()
    for state in states:
        for net in nets[state.net : state.net + 1]:
            for node in net.graph.nodes:
                if node.id == state.layer and isinstance(node.layer, Layer):
                    blobs = (torch.tensor(list(blob.data)).reshape(tuple(blob.shape.dim)) for blob in state.state)
                    net.run.carried[node.layer.key] = tuple(blob.to(net.device) for blob in blobs)
