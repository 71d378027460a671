"""Explanation -> DOT and HTML."""

from __future__ import annotations

import html as markup
from collections import defaultdict

from .report import Explanation, GraphReport

__all__ = ["dot", "html"]

PALETTE = ("#cfe8ff", "#d8f0d0", "#fff0c8", "#ecd9ff", "#ffd9d0", "#d0f0f0")
EAGER_COLOR = "#ff9d9d"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
  body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em; max-width: 80em }}
  table {{ border-collapse: collapse; margin: 1em 0 }}
  td, th {{ border: 1px solid #ccc; padding: .2em .6em; text-align: left; vertical-align: top }}
  td.number {{ text-align: right }}
  code {{ font-size: 12px }}
  pre {{ background: #f6f6f6; padding: 1em; overflow-x: auto }}
</style>
<h1>{title}</h1>
<pre>{text}</pre>
{graphs}
</html>
"""


def _color(partition: int | None) -> str:
    return EAGER_COLOR if partition is None else PALETTE[partition % len(PALETTE)]


def dot(explanation: Explanation) -> str:
    """One digraph; every fx graph and every partition in it is a cluster, fallbacks are red."""
    lines = ["digraph accel {", "  node [shape=box, style=filled, fillcolor=white, fontsize=10];"]
    for number, graph in enumerate(explanation.graphs):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(f'{graph.name} ({graph.kind})')};", *_dot_graph(graph, number), "  }"]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_graph(graph: GraphReport, number: int) -> list[str]:
    members: dict[int | None, list[str]] = defaultdict(list)
    for node, facts in graph.digraph.nodes.items():
        style = f", fillcolor={_quoted(EAGER_COLOR)}, tooltip={_quoted(facts['reason'])}" if facts["reason"] else ""
        members[facts["partition"]].append(f"      {_quoted(f'{number}.{node}')} [label={_quoted(node)}{style}];")
    lines = list(members.pop(None, []))
    for partition, nodes in sorted(members.items()):
        style = f"      label={_quoted(f'partition {partition}')}; style=filled; color={_quoted(_color(partition))};"
        lines += [f"    subgraph cluster_{number}_{partition} {{", style, *nodes, "    }"]
    return lines + [f"    {_quoted(f'{number}.{source}')} -> {_quoted(f'{number}.{target}')};" for source, target in graph.digraph.edges]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def html(explanation: Explanation) -> str:
    """A page of its own: the table, then every node of every graph with its partition or its reason."""
    graphs = "\n".join(_html_graph(graph, number) for number, graph in enumerate(explanation.graphs))
    return PAGE.format(title=markup.escape(explanation.name), text=markup.escape(str(explanation)), graphs=graphs)


def _html_graph(graph: GraphReport, number: int) -> str:
    sources = {fallback.node: fallback.source for fallback in graph.fallbacks}
    rows = []
    for node, facts in graph.digraph.nodes.items():
        if not facts["native"] and not facts["reason"]:
            continue
        place = f"partition {facts['partition']}" if facts["native"] else "eager"
        cells = (node, facts["op"], place, facts["reason"], sources.get(node, ""))
        marked = "".join(f"<td><code>{markup.escape(cell)}</code></td>" for cell in cells)
        rows.append(f'<tr style="background: {_color(facts["partition"])}">{marked}</tr>')
    head = "<tr><th>node</th><th>operator</th><th>runs in</th><th>reason</th><th>source</th></tr>"
    return f"<h2>graph {number}: {graph.kind}</h2>\n<table>\n{head}\n" + "\n".join(rows) + "\n</table>"
