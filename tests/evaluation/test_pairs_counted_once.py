"""Every record of a source with an end counts once; pairs of a source without an end are a sample.

Record i has images whose features have distance i + 1, so the distances show which records were measured.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from siamese_proto.check.net import check_net
from siamese_proto.cli import main
from siamese_proto.data.databases.database import create_database
from siamese_proto.data.databases.store import Backend
from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.data.sampling import distinct_pairs
from siamese_proto.errors import DataError, NetError
from siamese_proto.evaluation.pair_distances import MeasuredPairs, measure_data_layers, measure_pairs
from siamese_proto.evaluation.pair_sources import open_pair_images
from siamese_proto.evaluation.report import Evaluation, as_table
from siamese_proto.evaluation.twin import Subject, Twin
from siamese_proto.evaluation.verification import Distances, split_in_halves, verify
from siamese_proto.net.net import Net
from siamese_proto.proto import schema
from siamese_proto.solver.test_coverage import uneven_records

TOWERS = "".join(
    f"""
layer {{ name: "ip{side}" type: "InnerProduct" bottom: "{side}" top: "f{side}" param {{ name: "w" }}
        inner_product_param {{ num_output: 1 bias_term: false weight_filler {{ type: "constant" value: 1 }} }} }}"""
    for side in "ab"
)
LOSS = 'layer { name: "loss" type: "ContrastiveLoss" bottom: "fa" bottom: "fb" bottom: "y" top: "loss" }\n'
SLICE = 'layer { name: "cut" type: "Slice" bottom: "ab" top: "a" top: "b" slice_param { axis: %d } }\n'


def hdf5(folder: Path, rows: tuple[int, ...], settings: str) -> str:
    """A layer over as many files as there are numbers of rows, numbered through."""
    begin = 0
    for number, count in enumerate(rows):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["a"] = np.stack([np.arange(begin, begin + count) + 1, np.full(count, 7)], 1).astype(np.float32)
            file["b"] = np.full((count, 2), [0, 7], np.float32)
            file["y"] = np.arange(begin, begin + count, dtype=np.float32) % 2
        begin += count
    (folder / "list.txt").write_text("".join(f"{number}.h5\n" for number in range(len(rows))))
    return (
        'layer { name: "d" type: "HDF5Data" top: "a" top: "b" top: "y" '
        f'hdf5_data_param {{ source: "{folder}/list.txt" {settings} }} }}'
    )


def database(folder: Path, backend: Backend, records: int, batch_size: int) -> str:
    with create_database(str(folder / "db"), backend) as writer:
        for record in range(records):
            datum = schema.Datum(channels=2, height=1, width=1, label=record % 2, data=bytes([record + 1, 0]))
            writer.put([(b"%05d" % record, datum.SerializeToString())])
    return (
        f'layer {{ name: "d" type: "Data" top: "ab" top: "y" data_param {{ source: "{folder}/db" backend: {backend} '
        f"batch_size: {batch_size} }} }}" + SLICE % 1
    )


def images(folder: Path, values: list[int], name: str) -> list[str]:
    paths = []
    for number, value in enumerate(values):
        paths.append(f"{name}{number}.png")
        Image.fromarray(np.array([[value]], np.uint8)).save(folder / paths[-1])
    return paths


def image_lists(folder: Path, records: int, settings: str) -> str:
    text = ""
    for name, values in (("a", list(range(1, records + 1))), ("b", [0] * records)):
        lines = [f"{path} {number % 2}\n" for number, path in enumerate(images(folder, values, name))]
        (folder / f"{name}.txt").write_text("".join(lines))
        text += (
            f'layer {{ name: "{name}" type: "ImageData" top: "{name}" top: "{"y" if name == "a" else "z"}" '
            f'image_data_param {{ source: "{folder}/{name}.txt" root_folder: "{folder}/" is_color: false '
            f"{settings} }} }}"
        )
    return text + 'layer { name: "quiet" type: "Silence" bottom: "z" }'


def csv_of_pairs(folder: Path, records: int, settings: str) -> str:
    first, second = images(folder, list(range(1, records + 1)), "a"), images(folder, [0] * records, "b")
    rows = zip(first, second, range(records), strict=True)
    (folder / "pairs.csv").write_text("".join(f"{a},{b},{number % 2}\n" for a, b, number in rows))
    return (
        'layer { name: "d" type: "PairData" top: "a" top: "b" top: "y" '
        f'pair_data_param {{ source: "{folder}/pairs.csv" is_color: false {settings} }} }}'
    )


def measured(source: str, count: int | None = None) -> MeasuredPairs:
    return measure_data_layers(Twin(Net(source + TOWERS + LOSS, "TEST", seed=3)), count)


SOURCES = {
    "one HDF5 file": lambda folder: hdf5(folder, (30,), "batch_size: 20"),
    "one HDF5 file, fewer rows than a batch": lambda folder: hdf5(folder, (30,), "batch_size: 64"),
    "more than are sampled": lambda folder: hdf5(folder, (3000,), "batch_size: 500"),
    "several HDF5 files": lambda folder: hdf5(folder, (7, 11, 3), "batch_size: 5"),
    "HDF5 files, shuffled": lambda folder: hdf5(folder, (7, 11, 3), "batch_size: 4 shuffle: true"),
    "LMDB": lambda folder: database(folder, "LMDB", 23, 10),
    "LevelDB": lambda folder: database(folder, "LEVELDB", 23, 10),
    "image lists": lambda folder: image_lists(folder, 11, "batch_size: 4"),
    "image lists that begin anywhere": lambda folder: image_lists(folder, 11, "batch_size: 4 rand_skip: 9"),
    "the same, shuffled": lambda folder: image_lists(folder, 11, "batch_size: 4 rand_skip: 9 shuffle: true"),
    "CSV": lambda folder: csv_of_pairs(folder, 13, "batch_size: 5"),
    "CSV, shuffled": lambda folder: csv_of_pairs(folder, 13, "batch_size: 5 shuffle: true"),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_record_of_a_source_with_an_end_counts_once(make, tmp_path: Path) -> None:
    result = measured(make(tmp_path))
    order = np.argsort(result.distances.distance)
    count = len(order)
    np.testing.assert_array_equal(result.distances.distance[order], np.arange(count) + 1)
    np.testing.assert_array_equal(result.distances.same[order], np.arange(count) % 2 == 1)
    assert count in (30, 3000, 21, 23, 11, 13)
    assert result.distances.distinct == count
    assert result.description.endswith("each record once")


def test_a_second_measurement_begins_with_the_first_record_again(tmp_path: Path) -> None:
    twin = Twin(Net(hdf5(tmp_path, (9,), "batch_size: 4") + TOWERS + LOSS, "TEST"))
    twin.net.pull()  # as if a batch had been looked at
    for _ in range(2):
        assert measure_data_layers(twin).distances.distance.tolist() == list(range(1, 10))


def test_a_count_takes_the_first_pairs_and_never_more_than_there_are(tmp_path: Path) -> None:
    source = hdf5(tmp_path, (30,), "batch_size: 20")
    assert measured(source, 7).distances.distance.tolist() == list(range(1, 8))
    assert measured(source, 7).description.endswith("batches of 20, the first 7 of 30")
    assert len(measured(source, 2000).distances) == 30


def test_balanced_pairs_of_a_fixed_set_are_two_for_each_anchor() -> None:
    source = (
        'layer { name: "d" type: "PairData" top: "a" top: "b" top: "y" pair_data_param { source: "digits" seed: 2 '
        "tuple: BALANCED batch_size: 4 tuples: 9 } }"
    )
    result = measured(source)
    assert (len(result.distances), int(result.distances.same.sum())) == (18, 9)
    assert result.description.endswith("each record once")


@pytest.mark.parametrize(
    ("source", "count", "pairs"),
    [
        ('"PairData" top: "a" top: "b" top: "y" pair_data_param { source: "digits" batch_size: 64 }', 70, "70"),
        (
            '"DummyData" top: "a" top: "b" top: "y" dummy_data_param { shape { dim: 9 dim: 3 } shape { dim: 9 dim: 3 } '
            'shape { dim: 9 } data_filler { type: "gaussian" } data_filler { type: "gaussian" } data_filler '
            '{ type: "uniform" max: 2 } }',
            None,
            "2000",
        ),
    ],
)
def test_pairs_of_a_source_without_an_end_are_described_as_a_sample(source: str, count: int | None, pairs: str) -> None:
    result = measured(f'layer {{ name: "d" type: {source} }}', count)
    assert result.description.endswith(f"a sample of {pairs}, as the source has no end")
    assert len(result.distances) == int(pairs)


def test_both_images_of_a_pair_in_one_batch_are_measured_in_whole_batches(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file["ab"] = np.array([1, 2, 0, 0, 3, 4, 0, 0, 5, 6], np.float32)[:, None]
        file["y4"] = np.arange(10, dtype=np.float32) % 2
    (tmp_path / "list.txt").write_text("0.h5\n")
    source = (
        'layer { name: "d" type: "HDF5Data" top: "ab" top: "y4" '
        f'hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 4 }} }}'
        'layer { name: "half" type: "Slice" bottom: "y4" top: "y" top: "rest" slice_param { axis: 0 } }'
        'layer { name: "quiet" type: "Silence" bottom: "rest" }' + SLICE % 0
    )
    result = measured(source)
    assert result.distances.distance.tolist() == [1, 2, 3, 4]
    assert result.description.endswith("each record once except the last 2, which fill no batch")


def test_sources_of_different_lengths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "y").mkdir()
    y = (
        hdf5(tmp_path / "y", (20,), "batch_size: 10")
        .replace('name: "d"', 'name: "e"')
        .replace('top: "a" top: "b" ', "")
    )
    source = hdf5(tmp_path, (30,), "batch_size: 10").replace(' top: "y"', "") + y
    with pytest.raises(
        DataError, match=r"layer 'd' has 30 records in batches of 10 and layer 'e' has 20 in batches of 10"
    ):
        measured(source)
    assert len(measured(source, 25).distances) == 25


def test_evaluate_counts_the_30_pairs_of_a_file_as_30_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(hdf5(tmp_path, (30,), "batch_size: 20") + TOWERS + LOSS)
    Net("net.prototxt", "TEST").save_weights("w.caffemodel")
    done = CliRunner().invoke(main, ["evaluate", "--model", "net.prototxt", "--weights", "w.caffemodel"])
    assert "\n30 pairs, 15 same and 15 different: the net's own HDF5" in done.output
    assert ", each record once\n" in done.output
    assert "on 14 pairs, scored on 16 others" in done.output or "on 15 pairs, scored on 15 others" in done.output
    tested = CliRunner().invoke(main, ["test", "--model", "net.prototxt", "--weights", "w.caffemodel"])
    assert tested.stderr == (
        f"note: --iterations 50 with batches of 20 tests 1000 records, but '{tmp_path}/list.txt' has 30, so some count "
        "more often than others; --iterations 3 counts all equally\n"
    )


def test_data_that_are_not_finite_are_reported_instead_of_the_weights(tmp_path: Path) -> None:
    source = hdf5(tmp_path, (30,), "batch_size: 20")
    with h5py.File(tmp_path / "0.h5", "r+") as file:
        file["b"][7, 1] = np.nan
    with pytest.raises(
        DataError, match=r"^'b' in a batch of the net's data has 1 value that is NaN or infinite, the first"
    ):
        measured(source)
    (tmp_path / "net.prototxt").write_text(source + TOWERS + LOSS)
    assert [(finding.code, finding.text) for finding in check_net(tmp_path / "net.prototxt")] == [
        (
            "not-finite",
            f"layer 'd': 'b' of HDF5 file '{tmp_path}/0.h5' has 1 value that is NaN or infinite, the first in row 7; "
            "correct the data",
        )
    ]


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
@pytest.mark.parametrize(("iterations", "shown"), [(2, ""), (3, "3"), (5, "5"), (23, ""), (46, "")])
def test_the_command_test_warns_if_some_records_count_more_often(
    backend: Backend, iterations: int, shown: str, tmp_path: Path
) -> None:
    graph = Net(database(tmp_path, backend, 23, 10) + TOWERS + LOSS, "TEST").graph
    text = uneven_records(graph, iterations)
    assert text == (
        f"--iterations {shown} with batches of 10 tests {shown}0 records, but '{tmp_path}/db' has 23, so some count "
        "more often than others; --iterations 23 counts all equally"
        if shown
        else ""
    )


# The same pair more than once


def test_copies_of_a_pair_are_in_the_same_half() -> None:
    random = np.random.default_rng(1)
    pair = random.integers(0, 40, 200)
    pairs = Distances(random.random(200), pair % 3 == 0, pair)
    for seed in range(20):
        one, other = split_in_halves(pairs, seed)
        assert one.pair is not None
        assert other.pair is not None
        assert not set(one.pair.tolist()) & set(other.pair.tolist())
        assert len(one) + len(other) == 200
        for same in (True, False):
            assert abs(int((one.same == same).sum()) - int((other.same == same).sum())) <= 6
    with pytest.raises(DataError, match="1 of 3 pairs are of one class: expected at least 2"):
        split_in_halves(Distances(np.arange(4.0), np.array([True, True, False, False]), np.array([5, 5, 6, 7])))


def test_records_that_repeat_a_pair_are_reported(tmp_path: Path) -> None:
    source = database(tmp_path, "LMDB", 12, 5)
    with create_database(str(tmp_path / "db"), "LMDB", overwrite=True) as writer:
        for record, (a, b) in enumerate([(1, 0), (2, 0), (3, 0), (4, 0), (1, 0), (0, 2), (9, 9)]):
            datum = schema.Datum(channels=2, height=1, width=1, label=record % 2, data=bytes([a, b]))
            writer.put([(b"%05d" % record, datum.SerializeToString())])
    twin = Twin(Net(source + TOWERS + LOSS, "TEST"))
    stored = open_pair_images(LabeledSource(f"{tmp_path}/db"), twin.preprocessing())
    for result in (measure_data_layers(twin), measure_pairs(twin, stored)):
        assert (len(result.distances), result.distances.distinct) == (7, 5)
        evaluation = Evaluation(Subject("m", (), "", "EUCLIDEAN", (), ""), result.description, verify(result.distances))
        assert "\n2 of them repeat another one: the intervals are those of 7 different pairs, so" in as_table(
            evaluation
        )
    stored.close()


def test_pairs_of_a_csv_that_name_the_same_images_are_copies(tmp_path: Path) -> None:
    csv_of_pairs(tmp_path, 3, "")
    (tmp_path / "pairs.csv").write_text("a0.png,b0.png,1\na1.png,b1.png,0\nb0.png,a0.png,1\n")
    twin = Twin(Net(csv_input() + TOWERS + LOSS.replace(LOSS, ""), "TEST"))
    result = measure_pairs(twin, open_pair_images(LabeledSource(str(tmp_path / "pairs.csv")), twin.preprocessing()))
    assert (len(result.distances), result.distances.distinct) == (3, 2)


def csv_input() -> str:
    shape = "input_param { shape { dim: 1 dim: 1 dim: 1 dim: 1 } }"
    return "".join(f'layer {{ name: "{side}" type: "Input" top: "{side}" {shape} }}' for side in "ab")


def test_the_seed_determines_which_pairs_of_a_csv_are_drawn(tmp_path: Path) -> None:
    csv_of_pairs(tmp_path, 13, "")
    twin = Twin(Net(csv_input() + TOWERS, "TEST"))
    for seed in (0, 1):
        pairs = open_pair_images(LabeledSource(str(tmp_path / "pairs.csv")), twin.preprocessing(), count=5, seed=seed)
        assert len({pairs.names(row) for row in range(len(pairs))}) == len(pairs) == 5
        assert pairs.description.startswith("5 drawn from the 13 pairs of ")


@pytest.mark.parametrize(("count", "same", "different"), [(4, 2, 2), (9, 5, 4), (20, 10, 10), (100, 10, 35)])
def test_pairs_drawn_for_evaluation_are_different(count: int, same: int, different: int) -> None:
    labels = np.array([0, 4, 0, 1, 2, 1, 2, 2, 0, 2])
    pairs, alike = distinct_pairs(labels, count, seed=3)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs) == same + different
    assert alike.sum() == same
    np.testing.assert_array_equal(labels[pairs[:, 0]] == labels[pairs[:, 1]], alike)


def test_half_of_all_pairs_are_drawn_without_a_copy() -> None:
    labels = np.repeat(np.arange(30), 3)
    pairs, alike = distinct_pairs(labels, 90, seed=1)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == 90
    assert (alike.sum(), (~alike).sum()) == (45, 45)
    with pytest.raises(NetError):
        distinct_pairs(np.arange(5), 4)
