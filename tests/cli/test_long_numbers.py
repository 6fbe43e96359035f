"""Numbers of 5,000 digits, which Python does not read as they are, wherever whole numbers are read from text."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from siamese_proto.cli import main
from siamese_proto.net.net import Net
from siamese_proto.proto.values import whole_number

LONG = "9" * 5000
SHOWN = f"{'9' * 60}...{'9' * 20} (5000 characters)"
NET = 'layer { name: "d" type: "%s" top: "x" top: "y" transform_param { crop_size: 2 } %s }'
WINDOWS = NET % ("WindowData", 'window_data_param { source: "%s.txt" batch_size: 1 }')
FILES = {
    "list.txt": f"a.png 0\na.png -{LONG}\n",
    "size.txt": f"# 0\na.png\n3\n2\n2\n{LONG}\n1 0.5 0 0 1 1\n",
    "number.txt": f"# {LONG}\na.png\n3\n2\n2\n1\n1 0.5 0 0 1 1\n",
    "window.txt": f"# 0\na.png\n3\n2\n2\n1\n{LONG} 0.5 0 0 1 1\n",
    "pairs.csv": f"a.png,a.png,1\na.png,a.png,{LONG}\n",
    "list.prototxt": NET % ("ImageData", 'image_data_param { source: "list.txt" batch_size: 1 }'),
    **{f"{name}.prototxt": WINDOWS % name for name in ("size", "number", "window")},
    "integer.prototxt": NET % ("ImageData", f"image_data_param {{ batch_size: {LONG} }}"),
    "enum.prototxt": NET % ("Data", f"data_param {{ backend: {LONG} }}"),
    "train.log": f"I0101 00:00:00.000000 1 solver.cpp:239] Iteration {LONG}, loss = 1\n",
    "judged.json": LONG,
}
GPU = ("train", "--solver", "none.prototxt", "--gpu")
USE = ("embed", "a.png", "-o", "x.npz", "--model", "list.prototxt", "--weights", "w")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "f/0/a.png", "f/0/b.png", "f/1/a.png", "f/1/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(name)
    for name, text in FILES.items():
        Path(name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "list.prototxt"), "list.txt:2: label -999999"),
        (("check", "size.prototxt"), "the image has 1000000"),
        (("check", "number.prototxt"), f"the image is given number {SHOWN}, but it is number 0"),
        (("check", "window.prototxt"), "is not 'label overlap x1 y1 x2 y2'"),
        (("check", "integer.prototxt"), f"'batch_size': expected an integer, got '{SHOWN}'"),
        (("check", "enum.prototxt"), f"unknown value '{SHOWN}' of data_param.backend"),
        (("data", "images", "list.txt", "out"), "list.txt:2: label -99999"),
        (("data", "pairs", "pairs.csv", "out"), "pairs.csv:2: "),
        (("data", "pairs", "f", "out", "--classes", LONG), f"no image has a class of '{SHOWN}'; they go from 0 to 1"),
        (("data", "pairs", "f", "out", "--classes", f"{LONG}:"), "no image has a class of '9999"),
        (("data", "pairs", "f", "out", "--classes", f"0:1,-{LONG}"), "no image has a class of '-9999"),
        (("data", "pairs", "f", "out", "--exclude-classes", "7" * 4000), "no image has a class of '7777"),
        (("data", "pairs", "f", "out", "--count", LONG), "Invalid value for '--count'"),
        (("data", "pairs", "f", "out", "--resize-height", LONG), "Invalid value for '--resize-height'"),
        ((*GPU, LONG), "--gpu 1000000"),
        ((*GPU, "\N{SUPERSCRIPT TWO}"), "is neither a list of GPU numbers nor 'all'"),
        ((*USE, "--gpu", LONG), "--gpu 1000000"),
        ((*USE, "--resize", f"{LONG}x2"), "list.txt:2: label"),
        (("summary", "list.prototxt", "--shape", f"x={LONG},2"), "is not of the form pair_data=64,2,28,28"),
        (("plot", "judged.json", "x.png"), "'judged.json' is not JSON"),
    ],
)
def test_a_number_of_5000_digits_is_one_line(arguments: tuple[str, ...], message: str, folder: Path) -> None:
    done = CliRunner().invoke(main, arguments)
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.exit_code != 0
    assert message in done.output
    assert not Path("out").exists()


def test_a_class_range_up_to_a_long_number_selects_all_classes(folder: Path) -> None:
    done = CliRunner().invoke(main, ["data", "pairs", "f", "out", "--classes", f"0:{LONG}"])
    assert done.output == "out: 4 pairs, 2 same and 2 different\n"


@pytest.mark.filterwarnings("default")
def test_a_log_line_with_an_iteration_of_5000_digits_is_skipped_with_a_warning(folder: Path) -> None:
    done = CliRunner().invoke(main, ["plot", "train.log", "x.png"])
    assert done.stderr.startswith("warning: train.log:1: ")
    assert "looks like a result but cannot be read" in done.stderr
    assert done.stderr.endswith("is not a training log: expected lines such as 'Iteration 100, loss = 0.05'\n")


def test_a_missing_image_to_compare_is_one_line_without_a_list(folder: Path) -> None:
    Path("tower.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "f" inner_product_param { num_output: 3 } }'
    )
    Net("tower.prototxt").save_weights("w.caffemodel")
    twin = ("--model", "tower.prototxt", "--weights", "w.caffemodel")
    done = CliRunner().invoke(main, ["compare", "a.png", "nope.png", *twin])
    assert (done.exit_code, done.stderr) == (
        1,
        "image 'nope.png' cannot be read: No such file or directory; check the path\n",
    )


@pytest.mark.parametrize("text", ["0", "-7", "+12", " 305 ", "1" * 100])
def test_a_number_is_read_as_it_is_written(text: str) -> None:
    assert whole_number(text) == int(text)


def test_a_very_long_number_is_a_large_number() -> None:
    assert whole_number(LONG) == 10**100
    assert whole_number(f"-{LONG}") == -(10**100)
    for text in ("", "x" * 200, f"{LONG}x", "--1"):
        with pytest.raises(ValueError, match=r"invalid literal|Exceeds"):
            whole_number(text)
