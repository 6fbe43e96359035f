"""The contents of a rendered drawing, read from its SVG."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from xml.etree import ElementTree

import graphviz

SVG = "{http://www.w3.org/2000/svg}"


def rendered(figure: graphviz.Digraph, renderer: str = "dot") -> ElementTree.Element:
    """Return the drawing of Graphviz (the system's or pip's), with its escapes for spaces removed."""
    place = sysconfig.get_path("scripts") if renderer != "dot" else None
    command = [shutil.which(renderer, path=place) or renderer, "-Kdot", "-Tsvg"]
    done = subprocess.run(command, input=figure.source.encode(), capture_output=True, check=True)
    assert renderer != "dot" or not done.stderr, done.stderr.decode()
    return ElementTree.fromstring(done.stdout.decode().replace("&#160;", " "))


def boxes(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """Return every node of the drawing by its DOT name."""
    return {group.findtext(f"{SVG}title", ""): group for group in classed(root, "node")}


def arrows(root: ElementTree.Element) -> dict[str, str]:
    """Return `from->to` and the label of every edge of the drawing."""
    return {group.findtext(f"{SVG}title", ""): words(group) for group in classed(root, "wire")}


def classed(root: ElementTree.Element, *names: str) -> list[ElementTree.Element]:
    """Return the groups that have all these classes, in document order."""
    return [group for group in root.iter(f"{SVG}g") if {*names} <= {*group.get("class", "").split()}]


def words(group: ElementTree.Element) -> str:
    """Return the texts of an element, separated by spaces, with multiplication signs as x."""
    return " ".join(" ".join(run.text or "" for run in group.iter(f"{SVG}text")).split()).replace("\u00d7", "x")


def runs(group: ElementTree.Element) -> str:
    """Return the unchanged texts of an element, joined."""
    return "".join(run.text or "" for run in group.iter(f"{SVG}text"))


def fill_behind(group: ElementTree.Element, text: str) -> str:
    """Return the fill of the smallest shape drawn just before a text."""
    fill = ""
    for element in group.iter():
        if element.tag in (f"{SVG}path", f"{SVG}polygon") and element.get("fill") not in (None, "none"):
            fill = element.get("fill", "")
        if element.tag == f"{SVG}text" and (element.text or "").replace("\u00d7", "x") == text:
            return fill
    raise AssertionError(f"{text!r} is not in {words(group)!r}")


def corner(group: ElementTree.Element) -> tuple[float, float]:
    """Return x and y of an element's first text that is not blank, with y pointing down."""
    first = next(run for run in group.iter(f"{SVG}text") if (run.text or "").strip())
    return float(first.get("x", "0")), float(first.get("y", "0"))
