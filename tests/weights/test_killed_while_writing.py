"""A process killed while it writes leaves the old file or the new one, never a partial one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paths
import pytest
from weight_nets import graph_of

from siamese_proto.weights import match_weights, read_state, read_weights

NET = """
    name: "n"
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 700 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 900 } }
"""
WRITER = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from weight_nets import graph_of
from siamese_proto.weights import StoredState, write_state, write_weights
graph = graph_of(sys.argv[3])
for number in range(1, 1000000):
    values = {param.id: np.full(param.shape, number, np.float32) for param in graph.params}
    for suffix in (".caffemodel", ".caffemodel.h5", ".safetensors", ".pt"):
        write_weights(sys.argv[1] + "/w" + suffix, graph, values)
    for suffix in (".solverstate", ".solverstate.h5"):
        write_state(sys.argv[1] + "/s" + suffix, StoredState(number, "w", 0, tuple(values.values())))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9 there")
def test_a_killed_process_leaves_no_partial_file_under_a_final_name(tmp_path: Path) -> None:
    graph = graph_of(NET)
    moments = random.Random(3)
    left_behind = 0
    for kills in range(12):
        if kills >= 3 and left_behind:  # at least one kill happened during a write
            break
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(paths.HELPERS), NET], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        with writer.stdout:
            assert writer.stdout.readline() == b"1\n"  # every file has been written once
            time.sleep(moments.random() / 5)
            writer.send_signal(signal.SIGKILL)
            assert writer.wait() == -signal.SIGKILL
        left_behind += len(list(tmp_path.glob(".*.partial")))
        for suffix in (".caffemodel", ".caffemodel.h5", ".safetensors", ".pt"):
            values, _ = match_weights(graph, read_weights(tmp_path / f"w{suffix}"))
            assert sorted(array.shape for array in values.values()) == [(900,), (900, 700)]
            assert len({float(number) for array in values.values() for number in np.unique(array)}) == 1
        for suffix in (".solverstate", ".solverstate.h5"):
            state = read_state(tmp_path / f"s{suffix}")
            assert [array.shape for array in state.history] == [(900, 700), (900,)]
            assert {float(number) for array in state.history for number in np.unique(array)} == {state.iteration}
    assert left_behind
