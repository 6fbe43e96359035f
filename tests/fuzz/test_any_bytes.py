"""No bytes give anything but a result or a refusal in one line, within bounded time and memory."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paths
import pytest
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siamese_proto.proto import schema
from siamese_proto.weights import read_weights, write_stored

GOLDEN = paths.GOLDEN
CORPUS = sorted(path.read_bytes() for path in (GOLDEN / "corpus").glob("*.prototxt"))
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
MARKS = [b"{", b"}", b"[", b'"', b"'", b":", b"<", b"\\", b"#", b"-", b"1e999", b"nan", b"0", b"-1", b"9" * 40, b"\n"]
MARKS += [b"layer", b"layers", b"layer {", b"param", b"\xff", b"\xe9", b"\0", b"dim: 1000000000000", b"top: 'x'"]


@SLOW
@given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=300))
def test_bytes_of_no_meaning(name: str, content: bytes) -> None:
    TARGETS[name](content)


@SLOW
@given(st.sampled_from(["net", "check", "solver"]), st.data())
def test_published_files_with_shuffled_parts(name: str, data: st.DataObject) -> None:
    """Lines of several files and odd marks in any order."""
    lines = st.sampled_from([line for content in CORPUS for line in content.split(b"\n")])
    pieces = data.draw(st.lists(st.one_of(lines, st.sampled_from(MARKS)), max_size=25))
    TARGETS[name](b"\n".join(pieces))


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "found").iterdir()), ids=lambda path: path.name)
def test_bytes_that_were_once_a_fault(path: Path) -> None:
    """Found with coverage; the name of a file begins with its target."""
    TARGETS[path.name.partition(".")[0]](path.read_bytes())


def mutations(content: bytes, dice: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(len(changed) + 1)
            if dice.random() < 0.3:
                del changed[place : place + dice.randrange(1, 20)]
            elif dice.random() < 0.5:
                changed[place:place] = dice.choice(MARKS)
            elif place < len(changed):
                changed[place] = dice.randrange(256)
        yield bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net", "check"])
def test_files_of_people_changed_at_random(name: str) -> None:
    dice = random.Random(5)
    for content in CORPUS:
        for changed in mutations(content, dice, 4):
            TARGETS[name](changed)


@pytest.mark.parametrize("suffix", ["caffemodel", "h5", "safetensors", "pt"])
def test_weights_changed_at_random(suffix: str, tmp_path: Path) -> None:
    net = schema.NetParameter(name="n")
    blobs = [
        schema.BlobProto(shape=schema.BlobShape(dim=[2, 3]), data=range(6)),
        schema.BlobProto(data=[1, 2], num=2, channels=1, height=1, width=1),
    ]
    net.layer.add(name="ip", type="InnerProduct", blobs=blobs, param=[schema.ParamSpec(name="w")])
    net.layer.add(name="ip_p", type="InnerProduct", blobs=blobs, param=[schema.ParamSpec(name="w")])
    (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
    path = tmp_path / f"v.{suffix}"
    write_stored(path, read_weights(tmp_path / "w.caffemodel"))
    dice = random.Random(6)
    refused = [TARGETS[suffix](changed) for changed in mutations(path.read_bytes(), dice, 120)]
    assert any(refused)


BOUNDED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from fuzz_targets import TARGETS
from siamese_proto.proto import schema
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))  # less than one of these blobs
def blob(*dims, count=0):
    net = schema.NetParameter()
    values = schema.BlobProto(shape=schema.BlobShape(dim=dims), data=[0.0] * count)
    net.layer.add(name="ip", type="InnerProduct", blobs=[values])
    return net.SerializeToString()
assert TARGETS["caffemodel"](blob(10**6, 10**6))
TARGETS["caffemodel"](blob(10**12, 0))  # no number at all
old = schema.NetParameter()
old.layers.add(name="ip").blobs.add(num=10**6, channels=10**6, height=1, width=1, data=[1.0])
assert TARGETS["caffemodel"](old.SerializeToString())
header = b'{"ip/0":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
assert TARGETS["safetensors"](len(header).to_bytes(8, "little") + header)
text = b'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1000000 dim: 1000000 } } }'
ip = b'layer { name: "p" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4000000000 } }'
for name in ("net", "check"):
    TARGETS[name](text + ip)
    TARGETS[name](b"layer { name: 'a' type: 'Split' bottom: 'x' " + b"top: 't' " * 9000 + b"}")
    TARGETS[name](b"a { " * 200_000)
    TARGETS[name](b"[" * 200_000)
    TARGETS[name](b"input: 'x' " * 20_000)
    TARGETS[name](b'name: "' + b"\\\\x41" * 200_000 + b'"')
    TARGETS[name](text + b"layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'x' } " * 1500)
sys.stdout.write("bounded")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited there")
def test_what_declares_more_than_there_is_takes_neither_memory_nor_time() -> None:
    command = [sys.executable, "-c", BOUNDED, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "bounded", done.stderr[-2000:]
