"""Rewrite a graph so that it computes the same in less time. Nothing outside this folder knows a particular pass."""

from siamese_proto.graph.ir import Graph
from siamese_proto.passes.batch_norm import merge_scales
from siamese_proto.passes.fuse_towers import fuse_towers
from siamese_proto.passes.in_place import overwrite_bottoms
from siamese_proto.passes.pooled_convolution import pool_in_parts
from siamese_proto.passes.pooling import lean_pooling, pool_before_relu
from siamese_proto.passes.rewriting import Pass, Rewritten
from siamese_proto.passes.spectral_convolution import convolve_by_spectra

# The order matters:
PASSES: tuple[Pass, ...] = (
    merge_scales,  # first, since a merged layer can be fused with that of another tower
    pool_before_relu,  # before towers are fused, which keeps both layers in one region
    fuse_towers,  # before layers are replaced by faster ones, since it compares layers by type and settings
    convolve_by_spectra,  # before pooling is merged: where spectra are faster, the convolution stays separate
    pool_in_parts,  # after towers are fused: the layout of its gradient depends on the fused layers
    lean_pooling,  # after that, for the pooling layers that no convolution has taken
    overwrite_bottoms,  # last, since it depends on what the layers that really run save for backward
)


def optimize(graph: Graph) -> Rewritten:
    """Apply all passes.

    Args:
        graph: A graph as written. Shapes may be unknown; layers that depend on them stay as they are.

    Returns:
        The rewritten graph, and which nodes of `graph` no longer run by themselves.
    """
    written = {node.id for node in graph.nodes}
    replaced: set[str] = set()
    for rewrite in PASSES:
        result = rewrite(graph)
        graph = result.graph
        replaced |= result.replaced & written
    return Rewritten(graph, frozenset(replaced))
