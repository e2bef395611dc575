"""How every plot looks: one set of colours, light and dark, and an SVG that is the same each time it is drawn.

matplotlib takes half a second to import, so it is imported when the first plot is drawn.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUND, INK, QUIET, RULE = "#ffffff", "#1b1f24", "#5b6470", "#d9dde3"
"""Background, text, quieter text such as an axis has, and grid lines."""
BLUE, GREEN, RED, ORANGE, PINK, GREY = "#2f6fb3", "#1a7f37", "#c62828", "#b26a00", "#bf3989", "#8c959f"
_DARK = {
    GROUND: "#14171b",
    INK: "#e7eaee",
    QUIET: "#9aa4b0",
    RULE: "#333a43",
    BLUE: "#7db4ee",
    GREEN: "#56d364",
    RED: "#ff7b72",
    ORANGE: "#e3a94f",
    PINK: "#f778ba",
    GREY: "#7d8590",
}
"""What each colour becomes for a reader whose system is dark."""
_FONTS = "system-ui, 'DejaVu Sans', sans-serif"
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def figure(width_in: float, height_in: float) -> Figure:
    """An empty figure in this style; call it before you add axes, which take the style from matplotlib's settings."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns when it cannot keep its list of fonts
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "plot",
            "font.size": 10,
            "text.color": INK,
            "axes.facecolor": GROUND,
            "axes.edgecolor": RULE,
            "axes.labelcolor": INK,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": RULE,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "xtick.minor.size": 0,
            "ytick.minor.size": 0,
            "xtick.labelcolor": QUIET,
            "ytick.labelcolor": QUIET,
            "legend.frameon": False,
        }
    )
    return Figure((width_in, height_in), facecolor=GROUND, layout="constrained")


def svg(figure: Figure, label: str = "", tooltips: Mapping[str, str] | None = None) -> str:
    """The figure as an SVG element, for a page or a file of its own.

    `label` is what a screen reader says. `tooltips` has texts by the id (`gid`) of what a pointer is over.
    Colours are attributes and not styles, so the strictest Content-Security-Policy shows them; only the dark ones need
    a style sheet. Ids that nothing refers to are left out, so a page may hold several plots.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    root = ET.fromstring(file.getvalue())
    _simplify(root, tooltips or {})
    root.attrib.update({"class": "plot", "role": "img", "font-family": _FONTS})
    if label:
        root.set("aria-label", label)
    style = ET.Element(f"{{{_SVG}}}style")
    style.text = _dark_rules()
    root.insert(0, style)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return ET.tostring(root, encoding="unicode") + "\n"


def _simplify(root: ET.Element, tooltips: Mapping[str, str]) -> None:
    """Turns styles into attributes, drops matplotlib's own style sheet and unused ids, and adds the tooltips."""
    texts = [value for element in root.iter() for name, value in element.attrib.items() if name != "id"]
    used = {name for text in texts for name in re.findall(r"#([\w-]+)", text)}
    for element in root.iter():
        for child in [child for child in element if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata")]:
            element.remove(child)
        for declaration in filter(None, element.attrib.pop("style", "").split(";")):
            name, value = declaration.split(":", 1)
            if name.strip() != "font-family":  # the whole plot has one
                element.set(name.strip(), value.strip())
        gid = element.get("id", "")
        if gid in tooltips:
            title = ET.Element(f"{{{_SVG}}}title")
            title.text = tooltips[gid]
            element.insert(0, title)
        if gid and gid not in used:
            del element.attrib["id"]
    for marker in root.iterfind(f".//{{{_SVG}}}defs/{{{_SVG}}}path"):
        marker.attrib.pop("stroke", None)  # each use of a marker has its colour; a rule would not reach this one


def _dark_rules() -> str:
    kinds = ("fill", "stroke")
    rules = [f'.plot [{kind}="{light}"] {{ {kind}: {dark}; }}' for light, dark in _DARK.items() for kind in kinds]
    return "\n@media (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}\n"
