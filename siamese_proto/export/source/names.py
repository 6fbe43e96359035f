"""Names from a file as Python names, string literals and comments. They never become code."""

import builtins
import keyword
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

# Attributes of every torch module, which a layer of the same name would hide.
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
# Names that the generated source uses.
OWN_ATTRIBUTES = frozenset(("forward_once", "total_loss"))
TOP_LEVEL = frozenset(("torch", "tensor", "nn", "functional", "path", "sys", "json", "math", "any", "cast", "main"))
VARIABLES = TOP_LEVEL | frozenset(("self", "cls", "l", "outputs", *(name for name in dir(builtins) if name.islower())))

_LONGEST = 60  # of a name in a comment


class Names:
    """Unique identifiers of one scope."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.counts: dict[str, int] = {}  # uses of each name: real files repeat them

    def new(self, name: str) -> str:
        """Return `name` in lower case, with a number if it is taken."""
        base = _plain(name).lower()
        count = self.counts.get(base, 1)
        free = base if count == 1 else f"{base}_{count}"
        while free in self.taken or keyword.iskeyword(free) or keyword.issoftkeyword(free):
            count += 1
            free = f"{base}_{count}"
        self.taken.add(free)
        self.counts[base] = count
        return free


def common(names: Sequence[str], otherwise: str) -> str:
    """Return the common part of names in all towers: `conv` for `conv_a` and `conv_b`, or for `l_conv` and `r_conv`."""
    prefix = _start(names).rstrip("_-./ ")
    suffix = _start([name[::-1] for name in names])[::-1].lstrip("_-./ ")
    return next((part for part in (prefix, suffix) if len(part) > 1), otherwise)


def _start(names: Sequence[str]) -> str:
    """Return the common prefix of all names."""
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))  # the shortest ends it
    return "".join(column[0] for column in letters)


def class_name(name: str, taken: Iterable[str]) -> str:
    """Return a class name: `mnist_siamese` -> `MnistSiamese`; `Net` for a net without a name."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    joined = "".join(word[0].upper() + word[1:] for word in words)[:_LONGEST]
    base = joined if joined[:1].isalpha() else f"Net{joined}"
    reserved = {*taken, *keyword.kwlist, *dir(builtins), "Tensor", "Path", "Any"}
    is_taken = base in reserved or re.fullmatch(r"Tower\d*", base)  # the names of tower classes
    free, count = f"{base}Net" if is_taken else base, 1
    while free in reserved:
        count += 1
        free = f"{base}Net{count}"
    return free


def text(name: str) -> str:
    """Return a literal that evaluates to `name`: ASCII on one line, in double quotes."""
    return '"' + "".join(map(_escaped, name)) + '"'


def comment(names: Iterable[str]) -> str:
    """Return names of layers as a one-line comment in which nothing is an instruction to a tool."""
    shown = [shortened(name).replace("#", "\\x23") for name in names]
    return ", ".join(shown if len(shown) <= 3 else [*shown[:2], f"and {len(shown) - 2} more"])


def shortened(name: str) -> str:
    """Return the literal for `name`, shortened to a readable length."""
    room, letters = _LONGEST, ""
    for letter in map(_escaped, name):
        if room < len(letter):
            return f'"{letters}..."'
        letters, room = letters + letter, room - len(letter)
    return f'"{letters}"'


def _plain(name: str) -> str:
    """Return `name` with only letters, digits and single underscores, starting with a letter."""
    base = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:_LONGEST]
    return base if base[:1].isalpha() else f"layer_{base}".rstrip("_")


def _escaped(letter: str) -> str:
    if letter in '"\\' or not letter.isascii() or not letter.isprintable():
        code = ord(letter)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return letter
