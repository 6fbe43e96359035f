"""The included networks: their names, titles and files."""

from pathlib import Path

from siamese_proto.errors import NetError, did_you_mean, quoted

_PACKAGED = Path(__file__).parent / "networks"  # in a wheel
_IN_THE_REPOSITORY = Path(__file__).parent.parent / "prototxt"
NET = "train_test.prototxt"


def networks_folder() -> Path:
    """Return the folder that has one folder for each network."""
    return _PACKAGED if _PACKAGED.is_dir() else _IN_THE_REPOSITORY


def network_titles() -> dict[str, str]:
    """Return the titles of the networks by name: the first comment line of each file."""
    nets = sorted(networks_folder().glob(f"*/{NET}"))
    return {net.parent.name: net.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for net in nets}


def network_files(name: str) -> dict[str, str]:
    """Return the net, solver and deploy files of a network by file name; NetError for an unknown network."""
    titles = network_titles()
    if name not in titles:
        hint = did_you_mean(name, titles) or f"; expected one of {', '.join(titles)}"
        raise NetError(f"unknown network {quoted(name)}{hint}")
    files = sorted((networks_folder() / name).glob("*.prototxt"))
    return {file.name: file.read_text(encoding="utf-8") for file in files}
