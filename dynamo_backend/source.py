"""What a node is called in the user's own terms: operator, module, file and line."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import torch
from torch import fx

__all__ = ["innermost", "module_path", "op_name", "source_line"]

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
SELF = re.compile(r"^L\['(?P<name>\w+)'\]\.?")


@functools.cache
def _torch_directory() -> str:
    return str(Path(torch.__file__).parent)


def innermost(frames: list[tuple[str, int | str]]) -> str:
    """"file:line" of the last of `frames` (outermost first) that is not torch's own, or "" where there is none."""
    own = [frame for frame in frames if not frame[0].startswith(_torch_directory())]
    file, line = (own or frames or [("", "")])[-1]
    return f"{file}:{line}" if file else ""


def source_line(node: fx.Node) -> str:
    """"file:line" of the innermost frame outside torch that led to `node`, or "" where none is known."""
    return innermost(FRAME.findall(node.stack_trace or ""))


def op_name(node: fx.Node) -> str:
    """The operator as "aten.mul", or "aten.mul.Tensor" where the overload has a name."""
    return str(node.target).removesuffix(".default")


def module_path(node: fx.Node) -> str:
    """The innermost module that `node` belongs to, as "encoder.layers.0", or "" for the outermost."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed([entry[0] for entry in stack.values()]), "")
    return SELF.sub("", path).replace("._modules", "").replace("['", ".").replace("']", "").strip(".")
