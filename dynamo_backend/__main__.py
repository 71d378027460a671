"""python -m accel {explain, coverage, profile, sweep, machines, cache, doctor}."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from .errors import AccelError

__all__ = ["load_target", "main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the process's exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="accel", description="Inspect what the accel backend of torch.compile does.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (summary, add_arguments, _) in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=summary, description=summary))
    for name, summary in OWN_PARSERS.items():
        commands.add_parser(name, help=summary, add_help=False)
    if argv and argv[0] in OWN_PARSERS:
        module = importlib.import_module(f".{argv[0]}", __package__)
        return module.main(argv[1:]) or 0
    arguments = parser.parse_args(argv)
    try:
        return COMMANDS[arguments.command][2](arguments) or 0
    except AccelError as error:
        print(error, file=sys.stderr)
        return 1


def load_target(target: str) -> tuple[Callable, tuple, dict]:
    """What the function named by "path/to/file.py:function" returns, as (model, args, kwargs).

    The function returns (model, inputs); inputs are a tuple or list of arguments, a dict of keyword arguments, or one tensor.

    Raises:
        AccelError: no such file or function, or it returns something else.
    """
    path, _, name = target.rpartition(":")
    file = Path(path).resolve()
    if not path or not file.is_file():
        raise AccelError(f"accel: expected path/to/file.py:function, got {target!r}")
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise AccelError(f"accel: {file} has no function {name!r}")
    made = getattr(module, name)()
    if not (isinstance(made, tuple) and len(made) == 2):
        raise AccelError(f"accel: {target} must return (model, inputs), got {type(made).__name__}")
    model, inputs = made
    if isinstance(inputs, dict):
        return model, (), inputs
    return model, tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {}


def _compilation_arguments(parser: argparse.ArgumentParser, machine: str) -> None:
    """What the commands that compile a model share."""
    parser.add_argument("target", help="path/to/file.py:function; the function returns (model, inputs)")
    parser.add_argument("--machine", default=machine, help=f"host, a preset or a TOML file (default: {machine})")
    parser.add_argument("--dynamic", action="store_true", help="compile for symbolic sizes")
    parser.add_argument("--freeze", action="store_true", help="take parameters as constants")
    parser.add_argument("--max-autotune", action="store_true", help="time schedules of kernels and keep the fastest")
    parser.add_argument("--train", action="store_true", help="compile for training, backward pass included (default: inference, without gradients)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    _compilation_arguments(parser, "host")
    parser.add_argument("--html", metavar="FILE", help="write a page")
    parser.add_argument("--dot", metavar="FILE", help="write a graph for Graphviz")


def _explain(arguments: argparse.Namespace) -> None:
    import torch

    from . import explain

    model, args, kwargs = load_target(arguments.target)
    with torch.set_grad_enabled(arguments.train):
        explained = explain(model, **_compilation_options(arguments))(*args, **kwargs)
    if arguments.html:
        explained.to_html(arguments.html)
    if arguments.dot:
        Path(arguments.dot).write_text(explained.to_dot())
    print(explained.to_json() if arguments.json else explained)


def _profile_arguments(parser: argparse.ArgumentParser) -> None:
    _compilation_arguments(parser, "dvx-h1")
    parser.add_argument("--verify", action="store_true", help="have every DVX intrinsic count, too, and compare")
    parser.add_argument("--all", action="store_true", help="list every kernel, not only the most costly ones")
    parser.add_argument("--trace", metavar="FILE", help="write a trace for chrome://tracing or Perfetto")


def _profile(arguments: argparse.Namespace) -> None:
    import torch

    from . import profile

    model, args, kwargs = load_target(arguments.target)
    with torch.set_grad_enabled(arguments.train):
        run = profile(model, verify=arguments.verify, **_compilation_options(arguments))
        profiled = run(*args, **kwargs)
    if arguments.trace:
        profiled.to_trace(arguments.trace)
    print(profiled.to_json() if arguments.json else profiled.table(None if arguments.all else 20))


def _compilation_options(arguments: argparse.Namespace) -> dict[str, object]:
    return {"machine": arguments.machine, "dynamic": arguments.dynamic or None, "freeze": arguments.freeze, "max_autotune": arguments.max_autotune}


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    _compilation_arguments(parser, "dvx-h1")
    parser.add_argument(
        "--vary", action="append", required=True, metavar="FIELD=VALUE,...", help="a field of the machine and its values; more than one: all combinations"
    )


def _sweep(arguments: argparse.Namespace) -> None:
    import torch

    from . import sweep

    fields = dict(_values_of(text) for text in arguments.vary)
    model, args, kwargs = load_target(arguments.target)
    with torch.set_grad_enabled(arguments.train):
        swept = sweep(model, fields, **_compilation_options(arguments))(*args, **kwargs)
    print(swept.to_json() if arguments.json else swept)


def _values_of(text: str) -> tuple[str, list[int | float]]:
    """ "vlen_bytes=32,64" as ("vlen_bytes", [32, 64])."""
    field, _, values = text.partition("=")
    try:
        return field, [float(value) if "." in value else int(value) for value in values.split(",")]
    except ValueError:
        raise AccelError(f"accel: expected FIELD=VALUE,VALUE,..., got {text!r}") from None


def _machines(arguments: argparse.Namespace) -> None:
    from .csrc.machine import machines

    for machine in machines().values():
        core = f"{machine.vlen_bytes} B vectors ({machine.lanes} f32), {machine.n_vregs} registers, {machine.n_contexts or 'torch'} contexts"
        memory = f"L1 {machine.l1_bytes // 1024} KB, L2 {machine.l2_bytes // 1024} KB, TCM {machine.tcm_bytes // 1024} KB"
        print(f"{machine.name:10}  {core}, {memory}, {machine.clock_mhz} MHz")
        fields = [f"{field.name}={getattr(machine, field.name)}" for field in dataclasses.fields(machine) if field.name != "name"]
        print(textwrap.fill(", ".join(fields), 120, initial_indent="            ", subsequent_indent="            "))


def _cache_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", help="another directory than the default")
    parser.add_argument("--clear", action="store_true", help="remove every entry")


def _cache(arguments: argparse.Namespace) -> None:
    from .runtime.cache import Cache

    cache = Cache(arguments.dir)
    if arguments.clear:
        print(f"{cache.root}: removed {cache.clear()} entries")
        return
    entries = list(cache.entries())
    print(f"{cache.root}: {len(entries)} entries, {sum(entry.n_bytes for entry in entries) / 1e6:.1f} MB")


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import report

    lines, is_healthy = report()
    print("\n".join(lines))
    return 0 if is_healthy else 1


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


# command: (what it does, adds its arguments, runs it)
COMMANDS: dict[str, tuple[str, Callable, Callable]] = {
    "explain": ("partitions, kernels, fallbacks with reasons, and coverage of a model", _explain_arguments, _explain),
    "profile": ("executed instructions, cycles and energy of a model on a machine", _profile_arguments, _profile),
    "sweep": ("cycles and energy of a model while fields of the machine vary", _sweep_arguments, _sweep),
    "machines": ("the machines that code can be generated for", _no_arguments, _machines),
    "cache": ("size of the kernel cache, or empty it", _cache_arguments, _cache),
    "doctor": ("compiler, cache, threads and versions, and whether a small model compiles", _no_arguments, _doctor),
}

# Commands that read their own arguments: main(argv) of the module of that name.
OWN_PARSERS = {
    "coverage": "run test cases per operator and data type, and write the coverage matrix",
}

if __name__ == "__main__":
    sys.exit(main())
