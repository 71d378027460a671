"""Writes what every stage made of a graph: options={"dump_dir": ...}."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compile_graph import CompiledGraph

__all__ = ["dump_graph"]

logger = logging.getLogger("accel")


def dump_graph(compiled: CompiledGraph, dump_dir: Path) -> None:
    """Write graph.txt and runner.py of a graph, and per partition one file for each stage. A directory that cannot be written is one warning."""
    folder = dump_dir / compiled.name
    files = {folder / "graph.txt": str(compiled.graph) + "\n", folder / "runner.py": compiled.runner.text}
    for partition, made in compiled.compiled.items():
        suffixes = {"c": "c"}
        files |= {folder / f"partition_{partition.id}" / f"{stage}.{suffixes.get(stage, 'txt')}": text for stage, text in made.texts.items()}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        logger.warning("dump_dir: %s", error)
