"""snapshot_diff: the last step of each weight is stored next to it, as in Caffe's files."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from siamese_proto.proto import schema
from siamese_proto.solver import Solver


@pytest.mark.parametrize("enabled", [True, False])
def test_snapshot_diff_stores_the_step_of_every_blob(write_run, enabled: bool) -> None:
    solver = Solver(write_run(snapshot_diff=str(enabled).lower(), snapshot=3))
    solver.step(2)
    before = {name: [blob.detach().numpy().copy() for blob in blobs] for name, blobs in solver.net.params.items()}
    solver.step(1)
    solver.close()
    message = schema.NetParameter.FromString(Path("snap_iter_3.caffemodel").read_bytes())
    layers = {layer.name: layer for layer in message.layer}
    for name, blobs in before.items():
        for old, new in zip(blobs, layers[name].blobs, strict=True):
            step = old.ravel() - np.array(new.data, np.float32)
            if old.ndim > 1:  # the gradients of the last bias cancel between the towers
                assert np.abs(step).max() > 0
            if enabled:
                np.testing.assert_allclose(new.diff, step, rtol=0, atol=1e-7)
            else:
                assert len(new.diff) == 0


def test_hdf5_files_hold_the_steps_under_diff_with_their_owner(write_run) -> None:
    solver = Solver(write_run(snapshot_diff="true", snapshot=2, snapshot_format="HDF5"))
    solver.step(2)
    solver.close()
    with h5py.File("snap_iter_2.caffemodel.h5") as file:
        assert sorted(file["diff"]) == ["feat", "hidden"]
        for index, tensor in enumerate(solver.net.params["hidden"]):
            assert np.array_equal(file[f"diff/hidden/{index}"][()], tensor.grad.numpy())
    resumed = Solver("solver.prototxt", snapshot="snap_iter_2.solverstate.h5")
    assert resumed.iteration == 2
    resumed.close()
