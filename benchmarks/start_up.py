"""Time how long commands take to start, and how long a large net takes from text to module.

    python benchmarks/start_up.py [--rounds 5]

Commands run in separate processes; the minimum and median time are printed. The large net is a ResNet of 152
layers, written here as prototxt; its time is split into reading, building and filling the weights, without the import
of torch.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FLAGSHIP = Path(__file__).resolve().parent.parent / "prototxt" / "mnist_siamese" / "train_test.prototxt"


def resnet(blocks: tuple[int, ...] = (3, 8, 36, 3)) -> str:
    """Return ResNet-152 for 224 x 224 images in typical Caffe style: Convolution, BatchNorm, Scale and ReLU."""
    lines = ['name: "ResNet-152"', 'layer { name: "data" type: "Input" top: "data" ' + _shape(1, 3, 224, 224) + " }"]
    lines += _unit("conv1", "data", 64, 7, 2, 3)
    lines.append(
        'layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" '
        "pooling_param { pool: MAX kernel_size: 3 stride: 2 } }"
    )
    bottom, width = "pool1", 64
    for stage, count in enumerate(blocks):
        for block in range(count):
            name, stride = f"res{stage + 2}_{block}", 2 if stage and not block else 1
            shortcut = bottom
            if not block:
                lines += _unit(f"{name}_side", bottom, 4 * width, 1, stride, 0, relu=False)
                shortcut = f"{name}_side"
            lines += _unit(f"{name}_a", bottom, width, 1, stride, 0)
            lines += _unit(f"{name}_b", f"{name}_a", width, 3, 1, 1)
            lines += _unit(f"{name}_c", f"{name}_b", 4 * width, 1, 1, 0, relu=False)
            lines.append(
                f'layer {{ name: "{name}" type: "Eltwise" bottom: "{shortcut}" bottom: "{name}_c" top: "{name}" }}'
            )
            lines.append(f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}')
            bottom = name
        width *= 2
    lines.append(
        f'layer {{ name: "pool5" type: "Pooling" bottom: "{bottom}" top: "pool5" '
        "pooling_param { pool: AVE global_pooling: true } }"
    )
    lines.append(
        'layer { name: "fc" type: "InnerProduct" bottom: "pool5" top: "fc" '
        'inner_product_param { num_output: 1000 weight_filler { type: "xavier" } } }'
    )
    return "\n".join(lines) + "\n"


def _shape(*sizes: int) -> str:
    return "input_param { shape { " + " ".join(f"dim: {size}" for size in sizes) + " } }"


def _unit(name: str, bottom: str, outputs: int, kernel: int, stride: int, pad: int, *, relu: bool = True) -> list[str]:
    settings = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {pad} bias_term: false"
    same = f'bottom: "{name}" top: "{name}"'
    return [
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f'convolution_param {{ {settings} weight_filler {{ type: "msra" }} }} }}',
        f'layer {{ name: "bn_{name}" type: "BatchNorm" {same} }}',
        f'layer {{ name: "scale_{name}" type: "Scale" {same} scale_param {{ bias_term: true }} }}',
        *([f'layer {{ name: "{name}_relu" type: "ReLU" {same} }}'] if relu else []),
    ]


def timed(work: Callable[[], object], rounds: int) -> str:
    """Return the minimum and median of several runs, in seconds."""
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return f"{min(seconds):.3f} s, median {statistics.median(seconds):.3f} s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:

        def command(*arguments: str) -> Callable[[], object]:
            return lambda: subprocess.run(
                [sys.executable, "-m", "siamese_proto", *arguments], cwd=folder, check=False, capture_output=True
            )

        commands = (("--help",), ("check", str(FLAGSHIP)), ("summary", str(FLAGSHIP)))
        for arguments in (*commands, ("upgrade", str(FLAGSHIP), "upgraded.prototxt")):
            print(f"  {Path(arguments[0]).name:10s} {timed(command(*arguments), rounds)}")
        bare = [sys.executable, "-c", "pass"]
        print(f"  {'(python)':10s} {timed(lambda: subprocess.run(bare, check=True), rounds)}")
    import siamese_proto as sp

    print(f"  importing torch: {timed(lambda: sp.Net, 1)}")
    text = resnet()
    print(f"ResNet-152, {text.count('layer {')} layers")
    parsed = sp.parse_net(text)
    graph = sp.build_graph(parsed)
    print(f"  text to message:   {timed(lambda: sp.parse_net(text), rounds)}")
    print(f"  message to graph:  {timed(lambda: sp.build_graph(parsed), rounds)}")
    print(f"  graph to module:   {timed(lambda: sp.Net(graph), rounds)}")
    print(f"  text to module:    {timed(lambda: sp.Net(text), rounds)}")


if __name__ == "__main__":
    main()
