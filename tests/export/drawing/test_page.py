"""The page of a drawing in a real browser."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from drawn_nets import NO_DATABASE, PLAIN, THREE, TWIN, graph_of, inputs
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from siamese_proto import build_graph, parse_net
from siamese_proto.cli import main
from siamese_proto.errors import NetError
from siamese_proto.export.drawing import write_page

pytestmark = pytest.mark.slow

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed (Debian's package: chromium)")
# by default the browser asks its vendor for updates; as root it cannot have a sandbox
SWITCHES = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@dataclass
class Tab:
    """An open page, its console messages and its requests."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def panel(self) -> str:
        """The text next to the drawing, without empty lines."""
        return re.sub(r"\n+", "\n", self.page.locator("#panel").inner_text())

    def layer(self, number: int) -> Locator:
        return self.page.locator(f"#layer-{number}")

    def number(self, script: str) -> Any:
        return self.page.evaluate(script)

    def view(self) -> tuple[float, float, float]:
        """Left and upper edge of the visible part in units of the drawing, and pixels per unit, after a repaint."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        matrix = str(self.page.locator("#stage svg").evaluate("(svg) => getComputedStyle(svg).transform"))
        scale, _, _, _, right, down = map(float, matrix.removeprefix("matrix(").removesuffix(")").split(","))
        return -right / scale, -down / scale, scale

    def in_sight(self, element: Locator) -> bool:
        stage, box = self.page.locator("#stage").bounding_box(), element.bounding_box()
        return (
            box["x"] >= stage["x"]
            and box["y"] >= stage["y"]
            and box["x"] + box["width"] <= stage["x"] + stage["width"]
            and box["y"] + box["height"] <= stage["y"] + stage["height"]
        )

    def chosen(self) -> set[str]:
        return set(self.page.eval_on_selector_all(".layer.chosen", "(boxes) => boxes.map((box) => box.id)"))

    def is_dim(self, element: Locator) -> bool:
        return float(element.evaluate("(one) => getComputedStyle(one).opacity")) < 0.5


@contextmanager
def opened(browser: Browser, path: Path, **context: Any) -> Iterator[Tab]:
    """Open the page in a separate window; check that it logs no message and requests only itself."""
    window = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
    window.set_default_timeout(20_000)
    tab = Tab(window.new_page())
    tab.page.on("console", lambda message: tab.messages.append(message.text))
    tab.page.on("pageerror", lambda error: tab.messages.append(str(error)))
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    tab.page.goto(path.as_uri())
    try:
        yield tab
    finally:
        window.close()
    assert tab.messages == []
    assert [url for url in tab.requests if not url.startswith("data:,")] == [path.as_uri()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


def written(folder: Path, name: str, text: str, phase: str = "TRAIN", **options: Any) -> Path:
    parsed = parse_net(text)
    write_page(build_graph(parsed, phase=phase), folder / f"{name}.html", parsed=parsed, **options)
    return folder / f"{name}.html"


@pytest.fixture(scope="module")
def twin(folder: Path) -> Path:
    """Nodes 0 to 2 are inputs, 3 to 6 the first tower (ReLU in place), 7 to 10 the second, 11 the loss."""
    return written(folder, "twin", TWIN)


@pytest.fixture(scope="module")
def resnet(folder: Path) -> Path:
    return written(folder, "resnet", resnet_152())


def resnet_152() -> str:
    """As many layers as the published prototxt, in the same style: BatchNorm, Scale and ReLU in place."""
    parts = [inputs("data", shape=(1, 3, 224, 224))]

    def conv(name: str, bottom: str, outputs: int, kernel: int, stride: int = 1, *, relu: bool = True) -> str:
        parts.append(
            f"""layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{
                num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {kernel // 2} bias_term: false }} }}
            layer {{ name: "bn_{name}" type: "BatchNorm" bottom: "{name}" top: "{name}" }}
            layer {{ name: "scale_{name}" type: "Scale" bottom: "{name}" top: "{name}"
                     scale_param {{ bias_term: true }} }}"""
        )
        if relu:
            parts.append(f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}')
        return name

    x = conv("conv1", "data", 64, 7, 2)
    parts.append(
        """layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
           pooling_param { kernel_size: 3 stride: 2 } }"""
    )
    x = "pool1"
    for stage, (blocks, width) in enumerate([(3, 64), (8, 128), (36, 256), (3, 512)], 2):
        for block in range(blocks):
            name, stride = f"res{stage}b{block}", 2 if block == 0 and stage > 2 else 1
            side = conv(f"{name}_branch1", x, 4 * width, 1, stride, relu=False) if block == 0 else x
            y = conv(f"{name}_branch2b", conv(f"{name}_branch2a", x, width, 1, stride), width, 3)
            y = conv(f"{name}_branch2c", y, 4 * width, 1, relu=False)
            parts.append(
                f"""layer {{ name: "{name}" type: "Eltwise" bottom: "{side}" bottom: "{y}" top: "{name}" }}
                    layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}"""
            )
            x = name
    parts.append(
        f"""layer {{ name: "pool5" type: "Pooling" bottom: "{x}" top: "pool5"
                     pooling_param {{ kernel_size: 7 stride: 1 pool: AVE }} }}
            layer {{ name: "fc1000" type: "InnerProduct" bottom: "pool5" top: "fc1000"
                     inner_product_param {{ num_output: 1000 }} }}"""
    )
    return "".join(parts)


# Search and selection


@needs_browser
def test_a_layer_under_the_pointer_shows_its_text_shapes_and_parameters(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        assert "twin" in tab.panel
        tab.layer(3).hover(position={"x": 20, "y": 12})
        panel_text = tab.panel
        assert "conv\nConvolution" in panel_text
        assert "2x3x8x10" in panel_text
        assert "2x4x6x8" in panel_text
        assert "conv_w" in panel_text
        assert "4x3x3x3 \u00b7 108 \u00b7 learning rate \u00d7 1 \u00b7 shared by 2" in panel_text
        assert 'layer {\n  name: "conv"' in panel_text
        assert "kernel_size: 3" in panel_text
        tab.layer(11).hover(position={"x": 20, "y": 12})
        assert "ContrastiveLoss" in tab.panel
        assert "Convolution" not in tab.panel


@needs_browser
def test_in_place_layers_are_described_with_their_producer(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        tab.layer(5).hover(position={"x": 20, "y": 12})
        assert re.search(r'name: "ip"(.|\n)*name: "relu"', tab.panel)


@needs_browser
def test_a_clicked_layer_stays_selected_when_the_pointer_moves_away(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        tab.layer(3).click(position={"x": 20, "y": 12})
        tab.page.locator("#panel").hover()
        assert "conv\nConvolution" in tab.panel
        tab.page.keyboard.press("Escape")
        assert "Shared parameters" in tab.panel


@needs_browser
def test_a_clicked_parameter_highlights_only_its_users(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        tab.layer(3).locator(".chip").first.click()
        assert tab.chosen() == {"layer-3", "layer-7"}
        assert not tab.is_dim(tab.layer(3))
        assert not tab.is_dim(tab.layer(7))
        assert tab.is_dim(tab.layer(5))
        assert tab.page.locator(".halo.user").count() == 2
        assert "one tensor, used by 2 layers" in tab.panel
        assert tab.page.locator("#panel .users button").all_inner_texts() == ["conv", "conv_q"]
        tab.page.locator("#panel .users button").last.click()
        assert 'name: "conv_q"' in tab.panel
        tab.page.keyboard.press("Escape")
        assert tab.chosen() == set()
        assert not tab.is_dim(tab.layer(5))


@needs_browser
def test_the_legend_and_the_list_of_shared_parameters_highlight_users_too(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        tab.page.keyboard.press("0")
        tab.page.locator("#legend-2").click()
        assert tab.chosen() == {"layer-5", "layer-9"}
        tab.page.keyboard.press("Escape")
        tab.page.locator("#panel button", has_text="conv_b").click()
        assert tab.chosen() == {"layer-3", "layer-7"}
        for _ in range(8):
            tab.page.keyboard.press("+")
        assert not tab.in_sight(tab.layer(3))
        tab.page.locator("#all-users").click()
        tab.view()
        assert tab.in_sight(tab.layer(3))
        assert tab.in_sight(tab.layer(7))


@needs_browser
def test_search_finds_layers_types_and_parameters_and_steps_through_them(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        tab.page.keyboard.press("/")
        tab.page.keyboard.type("pool")
        results = tab.page.locator("#found")
        assert results.inner_text() == "1 of 2"
        assert tab.chosen() == {"layer-4", "layer-8"}
        assert 'name: "pool"' in tab.panel
        tab.page.keyboard.press("Enter")
        assert results.inner_text() == "2 of 2"
        assert 'name: "pool_q"' in tab.panel
        tab.page.keyboard.press("Enter")
        assert results.inner_text() == "1 of 2"
        for text, layers in (("relu", {5, 9}), ("INNERPRODUCT", {5, 9}), ("conv_b", {3, 7}), ("nothing", set())):
            tab.page.locator("#wanted").fill(text)
            assert tab.chosen() == {f"layer-{number}" for number in layers}
        assert results.inner_text() == "none"
        tab.page.locator("#wanted").fill("")
        assert not tab.is_dim(tab.layer(3))


@needs_browser
def test_a_search_result_is_scrolled_into_view_in_a_net_of_hundreds_of_layers(browser: Browser, resnet: Path) -> None:
    with opened(browser, resnet) as tab:
        assert tab.number("JSON.parse(document.getElementById('facts').textContent).layers.length") > 500
        assert "60,192,808 trainable" in tab.page.locator("#totals").inner_text()  # as published
        for name in ("fc1000", "res4b35_branch2b", "conv1"):
            tab.page.locator("#wanted").fill(name)
            tab.view()
            assert f'name: "{name}"' in tab.panel
            box = tab.page.locator(f".layer[aria-label^='{name},']")
            assert tab.in_sight(box)
            assert box.locator("text", has_text=name).first.bounding_box()["height"] > 8


# Navigation


@needs_browser
def test_the_wheel_zooms_at_the_pointer(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        x, y, scale = tab.view()
        tab.page.mouse.move(400, 500)
        stage = tab.page.locator("#stage").bounding_box()
        below = (x + (400 - stage["x"]) / scale, y + (500 - stage["y"]) / scale)
        tab.page.mouse.wheel(0, -300)
        nearer = tab.view()
        assert nearer[2] > 1.3 * scale
        assert (nearer[0] + (400 - stage["x"]) / nearer[2]) == pytest.approx(below[0], abs=0.5)
        assert (nearer[1] + (500 - stage["y"]) / nearer[2]) == pytest.approx(below[1], abs=0.5)
        tab.page.mouse.wheel(0, 300)
        assert tab.view() == pytest.approx((x, y, scale), abs=0.5)


@needs_browser
def test_dragging_moves_the_drawing_with_the_pointer_and_is_not_a_click(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        before = tab.layer(3).bounding_box()
        tab.page.mouse.move(before["x"] + 20, before["y"] + 10)
        tab.page.mouse.down()
        tab.page.mouse.move(before["x"] + 80, before["y"] + 60, steps=4)
        tab.page.mouse.up()
        tab.view()
        after = tab.layer(3).bounding_box()
        assert after["x"] - before["x"] == pytest.approx(60, abs=1.5)
        assert after["y"] - before["y"] == pytest.approx(50, abs=1.5)
        tab.page.locator("#panel").hover()
        assert tab.page.locator(".halo").count() <= 1  # at most the layer under the pointer, nothing selected


@needs_browser
def test_keys_move_and_resize_the_drawing_and_keep_it_in_view(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        x, y, scale = tab.view()
        tab.page.locator("#stage").focus()
        tab.page.keyboard.press("ArrowRight")
        tab.page.keyboard.press("ArrowDown")
        moved = tab.view()
        assert moved[0] == pytest.approx(x + 80 / scale, abs=0.5)
        assert moved[1] == pytest.approx(y + 80 / scale, abs=0.5)
        tab.page.keyboard.press("+")
        assert tab.view()[2] == pytest.approx(1.25 * scale, rel=0.01)
        tab.page.locator("#smaller").click()
        assert tab.view()[2] == pytest.approx(scale, rel=0.01)
        for key in ("ArrowRight", "ArrowUp", "+", "-"):
            for _ in range(40):
                tab.page.keyboard.press(f"Shift+{key}" if key.startswith("Arrow") else key)
            scale = tab.view()[2]
            net, stage = tab.page.locator("#net").bounding_box(), tab.page.locator("#stage").bounding_box()
            assert 0.05 < scale < 8.1
            for start, size in (("x", "width"), ("y", "height")):
                middle = stage[start] + stage[size] / 2
                assert net[start] - 2 <= middle <= net[start] + net[size] + 2
        tab.page.keyboard.press("0")
        tab.view()
        assert tab.in_sight(tab.page.locator("#net"))


@needs_browser
def test_layers_can_be_visited_with_the_keyboard_only(browser: Browser, twin: Path) -> None:
    with opened(browser, twin) as tab:
        tab.page.locator("#stage").focus()
        names = []
        for _ in range(5):
            tab.page.keyboard.press("Tab")
            names.append(tab.page.locator("#panel h2").first.inner_text())
            assert tab.in_sight(tab.page.locator(":focus"))
        assert names == ["left", "right", "sim", "conv", "pool"]


@needs_browser
def test_two_fingers_zoom_one_moves_and_a_tap_selects_a_layer(browser: Browser, twin: Path) -> None:
    with opened(browser, twin, has_touch=True, is_mobile=True, viewport={"width": 420, "height": 800}) as tab:
        touch = tab.page.context.new_cdp_session(tab.page)

        def fingers(kind: str, *points: tuple[int, int]) -> None:
            at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

        tab.layer(3).tap(position={"x": 15, "y": 8})
        assert "conv\nConvolution" in tab.panel
        scale = tab.view()[2]
        fingers("touchStart", (150, 300), (250, 300))
        fingers("touchMove", (130, 300), (270, 300))
        fingers("touchMove", (100, 300), (300, 300))
        fingers("touchEnd")
        pinched = tab.view()
        assert pinched[2] == pytest.approx(2 * scale, rel=0.05)
        fingers("touchStart", (200, 300))
        fingers("touchMove", (200, 280))
        fingers("touchMove", (200, 220))
        fingers("touchEnd")
        assert tab.view()[1] == pytest.approx(pinched[1] + 80 / pinched[2], abs=2)


# Appearance


@needs_browser
@pytest.mark.parametrize("name", ["twin", "resnet"])
def test_nothing_overflows_a_window_of_any_size(browser: Browser, name: str, request: pytest.FixtureRequest) -> None:
    with opened(browser, request.getfixturevalue(name)) as tab:
        tab.page.locator("#wanted").fill("branch2b" if name == "resnet" else "conv_w")
        for width, height in ((1600, 900), (900, 600), (390, 780), (320, 480)):
            tab.page.set_viewport_size({"width": width, "height": height})
            for wide in ("document.documentElement", "document.getElementById('panel')", "document.body"):
                assert tab.number(f"{wide}.scrollWidth - {wide}.clientWidth") <= 0
            assert tab.number("document.documentElement.scrollHeight") <= height
            assert tab.page.locator("#stage").bounding_box()["height"] > 0.3 * height
            for control in ("#wanted", "#larger", "#whole"):
                box = tab.page.locator(control).bounding_box()
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width


CONTRASTS = """() => {
    const luminance = (color) => {
        const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255);
        const linear = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const filled = (part) => !["none", "transparent"].includes(part.getAttribute("fill") || "none");
    const ratios = [];
    for (const text of document.querySelectorAll("#net text")) {
        if (!text.textContent.trim()) continue;
        const around = text.closest(".chip") || text.closest(".layer") || document.getElementById("net");
        const shape = [...around.querySelectorAll("path, polygon")].find(filled);
        const two = [luminance(text.getAttribute("fill")), luminance(shape.getAttribute("fill"))].sort();
        ratios.push((Math.max(...two) + 0.05) / (Math.min(...two) + 0.05));
    }
    return ratios;
}"""


@needs_browser
@pytest.mark.parametrize("style", ["plain", "dark", "paper", "caffe"])
def test_every_text_has_enough_contrast_in_light_and_dark_mode(browser: Browser, folder: Path, style: str) -> None:
    """Check the contrast of each text with its background, as defined by WCAG."""
    with opened(browser, written(folder, style, TWIN, style=style)) as tab:
        for scheme in ("light", "dark"):
            tab.page.emulate_media(color_scheme=scheme)
            tab.view()
            contrasts = tab.number(CONTRASTS)
            assert len(contrasts) > 30
            assert min(contrasts) > 3
            paper = tab.number("getComputedStyle(document.getElementById('stage')).backgroundColor")
            red = int(re.findall(r"\d+", paper)[0])
            assert red > 200 if scheme == "light" else red < 50


@needs_browser
def test_the_drawing_follows_the_color_scheme_of_the_system(browser: Browser, twin: Path) -> None:
    with opened(browser, twin, color_scheme="light") as tab:
        fill = "document.querySelector('#layer-3 path').getAttribute('fill')"
        light = tab.number(fill)
        tab.page.emulate_media(color_scheme="dark")
        tab.view()
        assert tab.number(fill) != light
        tab.page.emulate_media(color_scheme="light")
        tab.view()
        assert tab.number(fill) == light


# Untrusted files and the permissions of the page


HOSTILE = [
    "</script><script>window.harm=1</script>",
    "<img src=http://127.0.0.1:9/x onerror=window.harm=1>",
    '"><svg onload="window.harm=1">',
    "{{script}}",
    "{{facts}} $& \\\\u003cb>",
    "<!-- ]]> --> &lt;b&gt;",
    "javascript:alert(1)",
    "style='position:fixed'",
    "\u2028\u202e backwards \x07",
    "x" * 300,
]


def escaped(name: str) -> str:
    """A name as a prototxt writes it."""
    return '"' + "".join(f"\\{byte:03o}" for byte in name.encode()) + '"'


@needs_browser
def test_names_are_shown_unchanged_and_have_no_effect(browser: Browser, folder: Path) -> None:
    text = f"name: {escaped(HOSTILE[0] + HOSTILE[1])}" + inputs("data")
    for name in HOSTILE:
        text += f"""layer {{ name: {escaped(name)} type: "InnerProduct" bottom: "data" top: {escaped(name)}
                    param {{ name: {escaped(name)} }} inner_product_param {{ num_output: 2 }} }}"""
    with opened(browser, written(folder, "hostile", text)) as tab:
        title = tab.page.locator("#panel h2")

        def text_of(element: Locator) -> str:
            return str(element.evaluate("(one) => one.textContent"))

        assert text_of(tab.page.locator("h1")) == text_of(title) == HOSTILE[0] + HOSTILE[1]
        for number, name in enumerate(HOSTILE, 1):
            tab.layer(number).locator(".chip").first.dispatch_event("click")
            assert text_of(title) == name
            tab.page.locator("#panel .users button").first.click()
            assert text_of(title) == name
            tab.page.locator("#wanted").fill(name)
            assert f"layer-{number}" in tab.chosen()
            assert tab.number("document.documentElement.scrollWidth - innerWidth") <= 0
        assert tab.number("window.harm") is None
        assert tab.number("document.scripts.length") == 2
        assert tab.number("document.querySelectorAll('#panel img, #panel script, #panel svg, a').length") == 0


@needs_browser
def test_the_content_security_policy_blocks_requests_and_other_scripts(browser: Browser, twin: Path) -> None:
    """Even with a network, and with code in the page that tries."""
    visits: list[str] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            visits.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    window = browser.new_context()
    page = window.new_page()
    try:
        page.goto(twin.as_uri())
        tried = page.evaluate(
            """async (place) => {
                const failed = await fetch(place).then(() => false, () => true);
                const image = await new Promise((done) => {
                    const image = new Image();
                    image.onload = () => done(false);
                    image.onerror = () => done(true);
                    image.src = place;
                });
                const script = document.createElement("script");
                script.text = "window.harm = 1";
                document.body.append(script);
                const button = document.createElement("button");
                button.setAttribute("onclick", "window.harm = 1");
                document.body.append(button);
                button.click();
                const frame = document.createElement("iframe");
                frame.src = place;
                document.body.append(frame);
                await new Promise((done) => setTimeout(done, 200));
                return [failed, image, window.harm === undefined];
            }""",
            f"http://127.0.0.1:{server.server_port}/x",
        )
    finally:
        window.close()
        server.shutdown()
        server.server_close()
    assert tried == [True, True, True]
    assert visits == []


# Pages of every kind of drawing


BOTH = (
    """layer { name: "tests" type: "Data" top: "pairs" top: "sim" include { phase: TEST }
               data_param { source: "elsewhere" batch_size: 9 backend: LMDB } }"""
    + NO_DATABASE
)


@needs_browser
@pytest.mark.parametrize(
    ("text", "options"),
    [
        (THREE, {"towers": "collapsed"}),
        (THREE, {"fused": True}),
        (BOTH, {"test": graph_of(BOTH, phase="TEST")}),
        (TWIN, {"detail": "full", "rankdir": "LR", "learning_rates": True}),
        (TWIN, {"detail": "layers"}),
        (PLAIN.replace("Softmax", "NobodysLayer"), {}),
        ('name: "empty"', {}),
    ],
    ids=["collapsed", "fused", "both phases", "full", "layers", "unknown type", "empty"],
)
def test_every_box_of_any_drawing_describes_its_layers(
    browser: Browser, folder: Path, text: str, options: dict[str, Any]
) -> None:
    path = written(folder, "any", text, **options)
    with opened(browser, path) as tab:
        tab.page.locator("#stage").focus()
        for box in tab.page.locator(".layer").all():
            first = str(box.get_attribute("aria-label")).split(",")[0]
            tab.page.keyboard.press("Tab")
            assert tab.page.locator("#panel h2").first.inner_text() == first
            assert "prototxt" in tab.panel
        for chip in tab.page.locator(".layer .chip").all()[:4]:
            chip.dispatch_event("click")
            assert tab.page.locator(".halo.user").count() >= 1


def test_the_text_of_a_layer_keeps_unknown_fields(folder: Path) -> None:
    text = PLAIN.replace('type: "Softmax"', 'type: "NobodysLayer" nobodys_param { depth: 7 }')
    path = written(folder, "unknown", text)
    read = json.loads(re.search('id="facts">(.*?)</script>', path.read_text(encoding="utf-8"))[1])
    assert "nobodys_param {\n    depth: 7\n  }" in read["layers"][-1]["text"]


def test_weights_in_a_file_are_left_out_of_the_page(folder: Path) -> None:
    numbers = " ".join(f"data: {number}" for number in range(20_000))
    text = PLAIN.replace('type: "Softmax"', f'type: "Softmax" blobs {{ {numbers} }}')
    assert written(folder, "heavy", text).stat().st_size < 100_000


def test_the_facts_have_the_numbers_of_the_drawing(twin: Path) -> None:
    text = html.unescape(twin.read_text(encoding="utf-8"))
    read = json.loads(re.search('id="facts">(.*?)</script>', text)[1])
    assert [param["users"] for param in read["params"]] == [[3, 7], [3, 7], [5, 9], [5, 9]]
    for number, layer in enumerate(read["layers"]):
        drawn = re.search(rf'class="node layer [^"]*layer-{number}\b[^"]*"', text)
        assert {f"param-{use['param']}" for use in layer["uses"]} <= set(drawn[0].strip('"').split())
    assert read["layers"][6]["name"] == "relu"


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(TWIN)
    return tmp_path / "net.prototxt"


def test_a_page_is_written_by_option_or_by_file_extension(tmp_path: Path, net: Path) -> None:
    assert run("draw", net, "--html", tmp_path / "one.html").exit_code == 0
    assert run("draw", "--html", tmp_path / "two.html", net).exit_code == 0
    assert run("draw", net, tmp_path / "three.HTM").exit_code == 0
    assert run("draw", net, tmp_path / "four.svg", "--html", tmp_path / "four.html").exit_code == 0
    pages = [
        (tmp_path / name).read_text(encoding="utf-8") for name in ("one.html", "two.html", "three.HTM", "four.html")
    ]
    assert len(set(pages)) == 1
    assert "<script" not in (tmp_path / "four.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html", "net.svg"], "cannot write a page to 'net.svg': its name must end in .html"),
        (["--html", "none/net.html"], "there is no folder 'none'"),
        ([], "Missing argument 'OUT' or option '--html'"),
    ],
)
def test_an_impossible_page_is_reported_before_drawing(
    net: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(net.parent)
    done = run("draw", "net.prototxt", *arguments)
    assert done.exit_code == (1 if arguments else 2)
    assert message in done.output
    assert [path.name for path in net.parent.iterdir()] == ["net.prototxt"]


def test_the_library_also_refuses_a_page_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r"its name must end in \.html"):
        write_page(graph_of(PLAIN), tmp_path / "net.txt")


def test_a_page_is_never_partly_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.html"
    path.write_text("the old one")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NetError, match="No space left on device"):
        write_page(graph_of(PLAIN), path)
    assert path.read_text() == "the old one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.html"]
