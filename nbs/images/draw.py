"""The small drawings at the top of the notebooks: python nbs/images/draw.py writes *.svg from drawings.py.

One of them, the house, is drawn from what the modules import.

A drawing is a list of rows, a row a list of words: ">" or ">text" an arrow, "-text" plain text, "|" a gap, "=0.4 text"
a bar of 40 %, everything else a box, of which "b:", "o:", "g:", "r:", "y:" and "k:" before the text choose the colour.
"""

import ast
from html import escape
from pathlib import Path

COLOURS = {"b": "#0072B2", "o": "#D55E00", "g": "#009E73", "r": "#CC79A7", "y": "#E69F00", "k": "#666666"}
LETTER, LINE, GAP, EDGE = 6.9, 17, 8, 16


def width_of(text):
    "Points that the widest line of a text takes at 13 pixels."
    return max(LETTER * len(line) for line in text.split("\n"))


def lines(text, x, y, anchor="middle", colour="#1A1A1A"):
    "Lines of text, centred on y."
    rows = text.split("\n")
    top = y - (len(rows) - 1) * LINE / 2
    return "".join(
        f'<text x="{x:g}" y="{top + k * LINE + 4.5:g}" text-anchor="{anchor}" fill="{colour}">{escape(row)}</text>'
        for k, row in enumerate(rows)
    )


def box(word, x, y):
    "A box with text, and its width."
    colour, text = ("#1A1A1A", word) if word[1:2] != ":" else (COLOURS[word[0]], word[2:])
    wide, high = width_of(text) + 20, LINE * len(text.split("\n")) + 12
    look = f'fill="{colour}" fill-opacity="0.09" stroke="{colour}" stroke-width="1.5" rx="6"'
    made = f'<rect x="{x:g}" y="{y - high / 2:g}" width="{wide:g}" height="{high:g}" {look}/>'
    return made + lines(text, x + wide / 2, y), wide


def arrow(text, x, y):
    "An arrow with text above it, and its width."
    wide = max(36, width_of(text) + 16 if text else 0)
    line = f'<path d="M{x + 3:g} {y:g}H{x + wide - 9:g}" stroke="#1A1A1A" stroke-width="1.5"/>'
    head = f'<path d="M{x + wide - 11:g} {y - 5:g}l8 5l-8 5z" fill="#1A1A1A"/>'
    above = lines(text, x + wide / 2 - 2, y - 13 - (text.count("\n")) * LINE / 2, colour="#444444") if text else ""
    return line + head + above, wide


def bar(word, x, y):
    "A bar of a share of 160 points with its text at the right, and its width."
    share, _, text = word[1:].partition(" ")
    colour, text = (COLOURS[text[0]], text[2:]) if text[1:2] == ":" else (COLOURS["b"], text)
    wide = 160 * float(share)
    made = f'<rect x="{x:g}" y="{y - 8:g}" width="{max(wide, 1.5):g}" height="16" fill="{colour}" rx="2"/>'
    return made + lines(text, x + wide + 8, y, "start"), wide + 16 + width_of(text)


def item(word, x, y):
    "What a word of a row draws at x, and its width."
    if word.startswith("="):
        return bar(word, x, y)
    if word.startswith(">"):
        return arrow(word[1:], x, y)
    if word.startswith("-"):
        return lines(word[1:], x + 2, y, "start", "#444444"), width_of(word[1:]) + 6
    if word.startswith("|"):
        return "", float(word[1:] or 24)
    return box(word, x, y)


def height_of(row):
    "Points that a row needs."
    count = max((word.count("\n") + 1 for word in row if not word.startswith(">")), default=1)
    above = max((word.count("\n") + 1 for word in row if word.startswith(">") and len(word) > 1), default=0)
    plain = all(word[0] in "-|=" for word in row)
    return max(LINE * count + (4 if plain else 16), (2 * above + 1) * LINE if above else 0)


def draw(title, rows):
    "The drawing as the text of an SVG file."
    made, wide, y = [], 0, EDGE
    for row in rows:
        high, x = height_of(row), EDGE
        for word, after in zip(row, [*row[1:], ">"], strict=True):
            drawn, taken = item(word, x, y + high / 2)
            made.append(drawn)
            x += taken + (GAP if word[0] in "-=" or word[0] not in ">|" and after[0] not in ">|" else 0)
        wide, y = max(wide, x), y + high + 4
    wide, high = wide + EDGE, y + EDGE - 4
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high:.0f}" role="img" '
    head += f'viewBox="0 0 {wide:.0f} {high:.0f}" font-family="Arial, Helvetica, sans-serif" font-size="13">'
    paper = '<rect width="100%" height="100%" fill="#FFFFFF" rx="8"/>'
    return f"{head}<title>{escape(title)}</title>{paper}{''.join(made)}</svg>\n"


def imported():
    "For each room of the package (its single modules are rooms, too), its modules and the rooms that they import."
    package, rooms = Path(__file__).resolve().parents[2] / "ssnas_colab", {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if path.name.startswith("_") or parts == ("core", "using"):
            continue
        own = rooms.setdefault(parts[0], {"modules": [], "imports": set()})
        own["modules"].append(parts[-1])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = ["ssnas_colab", *parts[:-1]][: len(parts) + 1 - node.level] if node.level else []
                words = [*base, *(node.module.split(".") if node.module else [])]
                names = {words[1]} if len(words) > 1 else {alias.name for alias in node.names}
                own["imports"] |= names if words[0] == "ssnas_colab" else set()
    for name, room in rooms.items():
        room["imports"] = room["imports"] & rooms.keys() - {name}
    return rooms


def house():
    "Title and rows of the house: a row is a floor, on which each room imports only rooms of the rows below."
    rooms, left, floors = imported(), set(imported()), []
    while left:
        floors.append(sorted(name for name in left if not rooms[name]["imports"] & left))
        assert floors[-1], f"these import each other: {left}"
        left -= {*floors[-1]}
    colour = dict.fromkeys(("data", "models", "training", "nas"), "b:")
    colour |= dict.fromkeys(("inference", "reports", "plots", "widgets"), "g:")
    colour |= dict.fromkeys(("stages", "cli", "config"), "o:")
    rows = []
    for floor in reversed(floors):
        boxes = []
        for name in floor:
            modules = [] if rooms[name]["modules"] == [name] else rooms[name]["modules"]
            halves = [", ".join(modules[k : k + 4]) for k in range(0, len(modules), 4)]
            boxes.append("\n".join([f"{colour.get(name, 'k:')}{name.upper()}", *halves]))
        rows.append(boxes)
    return "The rooms of the package, floor by floor, drawn from its imports", rows


if __name__ == "__main__":
    from drawings import DRAWINGS

    for name, (title, rows) in {**DRAWINGS, "house": house()}.items():
        Path(__file__).with_name(f"{name}.svg").write_text(draw(title, rows), encoding="utf-8")
