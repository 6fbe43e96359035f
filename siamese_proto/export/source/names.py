"""Names from a file as names of Python, as texts and as comments: whatever they are, they never become code."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

# What every torch module has: an attribute of the same name would hide it.
MODULE_ATTRIBUTES = frozenset(
    [
        "add_module",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "load_state_dict",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "state_dict",
        "t_destination",
        "to",
        "to_empty",
        "train",
        "training",
        "type",
        "xpu",
        "zero_grad",
    ]
)
# What the text itself uses.
OWN_ATTRIBUTES = frozenset(("forward_once", "total_loss"))
TOP_LEVEL = frozenset(("torch", "tensor", "nn", "functional", "path", "sys", "json", "math", "any", "cast", "main"))
VARIABLES = TOP_LEVEL | frozenset(("self", "cls", "l", "outputs", *(name for name in dir(builtins) if name.islower())))

_LONGEST = 60  # of a name in a comment


class Names:
    """Identifiers of one scope, each given once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.counts: dict[str, int] = {}  # how often a name was wanted: real files repeat them

    def new(self, wanted: str) -> str:
        """`wanted` in lower case, or the nearest name that is still free."""
        base = _plain(wanted).lower()
        count = self.counts.get(base, 1)
        found = base if count == 1 else f"{base}_{count}"
        while found in self.taken or keyword.iskeyword(found) or keyword.issoftkeyword(found):
            count += 1
            found = f"{base}_{count}"
        self.taken.add(found)
        self.counts[base] = count
        return found


def common(names: Sequence[str], otherwise: str) -> str:
    """What the names of a thing have in common in all towers: `conv` of `conv_a` and `conv_b`, or of `l_conv`."""
    prefix = _start(names).rstrip("_-./ ")
    suffix = _start([name[::-1] for name in names])[::-1].lstrip("_-./ ")
    return next((part for part in (prefix, suffix) if len(part) > 1), otherwise)


def _start(names: Sequence[str]) -> str:
    """The letters that all names begin with."""
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))  # the shortest ends it
    return "".join(column[0] for column in letters)


def class_name(name: str, taken: Iterable[str]) -> str:
    """`mnist_siamese` -> `MnistSiamese`; `Net` for a net without a name."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    joined = "".join(word[0].upper() + word[1:] for word in words)[:_LONGEST]
    base = joined if joined[:1].isalpha() else f"Net{joined}"
    reserved = {*taken, *keyword.kwlist, *dir(builtins), "Tensor", "Path", "Any"}
    is_taken = base in reserved or re.fullmatch(r"Tower\d*", base)  # so the towers' classes are called
    found, count = f"{base}Net" if is_taken else base, 1
    while found in reserved:
        count += 1
        found = f"{base}Net{count}"
    return found


def text(name: str) -> str:
    """A literal that evaluates to `name`: ASCII on one line, between double quotes."""
    return '"' + "".join(map(_escaped, name)) + '"'


def comment(names: Iterable[str]) -> str:
    """Names of layers as a comment of one line: nothing in it is taken for an instruction to a tool."""
    shown = [shortened(name).replace("#", "\\x23") for name in names]
    return ", ".join(shown if len(shown) <= 3 else [*shown[:2], f"and {len(shown) - 2} more"])


def shortened(name: str) -> str:
    """The literal for `name`, of bearable length."""
    room, letters = _LONGEST, ""
    for letter in map(_escaped, name):
        if room < len(letter):
            return f'"{letters}..."'
        letters, room = letters + letter, room - len(letter)
    return f'"{letters}"'


def _plain(name: str) -> str:
    """`name` with letters, digits and single underscores alone, beginning with a letter."""
    base = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:_LONGEST]
    return base if base[:1].isalpha() else f"layer_{base}".rstrip("_")


def _escaped(letter: str) -> str:
    if letter in '"\\' or not letter.isascii() or not letter.isprintable():
        code = ord(letter)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return letter
