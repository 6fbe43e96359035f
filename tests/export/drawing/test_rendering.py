from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from drawn_nets import TWIN, graph_of, inputs

from siamese_proto.errors import NetError
from siamese_proto.export.drawing import draw, render


@pytest.fixture
def without_dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without Graphviz: only graphviz-pure, next to Python, is available."""
    monkeypatch.setenv("PATH", str(tmp_path))


STARTS = {"svg": b"<?xml", "png": b"\x89PNG\r\n", "pdf": b"%PDF-", "dot": b"digraph net {"}


@pytest.mark.parametrize("ending", STARTS)
def test_the_extension_determines_the_format(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"net.{ending}"
    render(draw(graph_of(TWIN)), path)
    assert path.read_bytes().startswith(STARTS[ending])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_no_system_graphviz_is_needed(ending: str, tmp_path: Path, without_dot: None) -> None:
    path = tmp_path / f"net.{ending}"
    render(draw(graph_of(TWIN)), path)
    assert path.read_bytes().startswith(STARTS[ending])


def test_pdf_without_dot_is_one_clear_error(tmp_path: Path, without_dot: None) -> None:
    with pytest.raises(NetError) as caught:
        render(draw(graph_of(TWIN)), tmp_path / "net.pdf")
    assert str(caught.value) == (
        "PDF needs Graphviz (the command `dot`), which is not installed; write .svg or .png instead"
    )


@pytest.mark.parametrize("name", ["net.jpg", "net.svgg", "net", ".svg"])
def test_other_extensions_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(NetError) as caught:
        render(draw(graph_of(TWIN)), tmp_path / name)
    assert str(caught.value) == (
        f"cannot draw to '{tmp_path / name}': its name must end in one of .svg, .png, .pdf, .dot"
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "picture" / "net.svg"
    with pytest.raises(NetError) as caught:
        render(draw(graph_of(TWIN)), path)
    assert str(caught.value) == (f"cannot write '{path}': there is no folder '{path.parent}'; did you mean 'pictures'?")


def test_an_existing_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "net.svg").mkdir()
    with pytest.raises(NetError, match="it is a folder"):
        render(draw(graph_of(TWIN)), tmp_path / "net.svg")


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "net.dot"
    path.write_text("old")
    path.chmod(0o640)
    render(draw(graph_of(TWIN)), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_same_net_is_drawn_with_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.dot", "b.dot"):
        render(draw(graph_of(TWIN)), tmp_path / name)
    assert (tmp_path / "a.dot").read_bytes() == (tmp_path / "b.dot").read_bytes()


def test_a_drawing_is_displayed_in_a_notebook() -> None:
    shown = draw(graph_of(TWIN))._repr_mimebundle_()
    assert shown["image/svg+xml"].startswith("<?xml")
    assert "conv_w" in shown["image/svg+xml"]


def test_a_notebook_displays_drawings_without_the_graphviz_of_the_system(without_dot: None) -> None:
    assert "conv_w" in draw(graph_of(TWIN))._repr_mimebundle_()["image/svg+xml"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz-pure knows no limit")
def test_a_png_that_is_scaled_down_is_reported(tmp_path: Path) -> None:
    chain = "".join(
        f'layer {{ name: "r{number}" type: "ReLU" bottom: "r{number - 1}" top: "r{number}" }}'
        for number in range(1, 400)
    )
    note = render(draw(graph_of(inputs("r0") + chain)), tmp_path / "tall.png")
    assert note == "the drawing is too large for a PNG and was made smaller; write .svg, or use --detail layers"
    assert render(draw(graph_of(TWIN)), tmp_path / "small.png") is None
