"""The title above the drawing and the legend of shared parameters below it."""

from collections.abc import Sequence

from siamese_proto.export.drawing.boxes import Picture
from siamese_proto.export.drawing.contents import DOT, Look, cell, chip_markup, row, styled, table, text
from siamese_proto.export.summary import count_text
from siamese_proto.graph.ir import Graph, Node, Param

NAMES_A_LINE = 4
ENTRY_WIDTH = 2  # approximate width of an entry in boxes
GROUP = 3  # parameters of one layer in a line


def title(look: Look, shown: Picture, test: Graph | None) -> str:
    """Return the name of the net, its phase, and its numbers of parameters and multiply-adds."""
    facts = shown.summary
    least = "" if facts.complete else "at least "
    parts = [facts.phase if test is None else f"{facts.phase} and {test.phase}"]
    if facts.parameters:
        unshared = f" ({facts.unshared_parameters:,} unshared)" if facts.unshared_parameters > facts.parameters else ""
        parts.append(f"{least}{facts.parameters:,} parameters{unshared}")
    if facts.multiply_adds:
        parts.append(f"{least}{count_text(facts.multiply_adds)} multiply-adds a forward pass")
    if not facts.complete:
        parts.append("some shapes are not known")
    name = styled(text(shown.graph.name or "net"), size=18, bold=True)
    lines = [DOT.join(parts)]
    if len(lines[0]) > 60 and look.across < 3:
        lines = [DOT.join(parts[:2]), DOT.join(parts[2:])] if len(parts) > 2 else lines
    subtitle = [row([cell(styled(line, size=11, color=look.style.faint))]) for line in lines]
    return table([row([cell(name)]), *subtitle, row([cell(" ")])])


def legend(look: Look, shown: Picture) -> tuple[str, list[Param]]:
    """Return the legend, and the parameters in the order in which it shows them."""
    groups: dict[tuple[object, ...], list[Param]] = {}
    for param in shown.graph.params:
        if param.id in shown.paints:
            users = tuple(node.id for node in shown.users[param.id])
            groups.setdefault((param.owner, param.index // GROUP, users), []).append(param)
    entries = [(_entry(look, shown, params), params) for params in groups.values()]
    if shown.private:
        entries.append((_not_shared(look), []))
    if not entries:
        return "", []
    columns = max(1, min(look.across // ENTRY_WIDTH, -(-len(entries) // 2), 4))
    height = -(-len(entries) // columns)
    gap = cell("    ")
    title = cell(styled("Shared parameters", size=11, bold=True), colspan=3 * columns - 1, align="left")
    rows = [row([cell(" ", colspan=3 * columns - 1)]), row([title])]
    listed: list[Param] = []
    for start in range(height):
        line = entries[start::height]
        rows.append(row([gap.join(markup for markup, _ in line)]))
        listed.extend(param for _, params in line for param in params)
    return table(rows, cellspacing=3, cellpadding=2), listed


def _entry(look: Look, shown: Picture, params: Sequence[Param]) -> str:
    chips = table([row([chip_markup(look, shown, param) for param in params])], cellspacing=2)
    names = _names(shown, shown.users[params[0].id])
    users = styled(names, size=9, color=look.style.ink)
    return cell(chips, align="left") + cell(users, align="left", balign="left")


def _names(shown: Picture, users: Sequence[Node]) -> str:
    stacked = {node.id for stack in shown.stacks for box in stack.boxes for node in (*box.nodes, *box.copies)}
    if len(users) > 2 and all(node.id in stacked for node in users):
        return f"{len(users)} layers, {text(users[0].name)} \u2026 {text(users[-1].name)}"
    names = [text(node.name) for node in users]
    lines = [", ".join(names[start : start + NAMES_A_LINE]) for start in range(0, len(names), NAMES_A_LINE)]
    return ",<BR/>".join(lines)


def _not_shared(look: Look) -> str:
    words = styled("<B>not shared</B>", size=9, color=look.style.alarm)
    chip = cell(words, border=1, bgcolor=look.style.unlike.fill, color=look.style.unlike.line, style="rounded")
    own = styled("separate parameters in layers that otherwise share", size=9, color=look.style.ink)
    return cell(table([row([chip])], cellspacing=2), align="left") + cell(own, align="left")
