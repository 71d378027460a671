"""Warm starts: what AOTAutograd and accel made of a graph of Dynamo's is kept on disk, and loaded instead of made again.

AOTAutograd has a cache for inductor's results. This module has it take ours, too: the classes that keep and restore its
wrappers are torch's, the key leaves out what only inductor asks for (hashing and importing all of inductor costs more than
tracing a small model), and the files lie in accel's own cache. Where torch's internals are not as in the version this was
written for, nothing is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch._functorch import aot_autograd, config
from torch._functorch._aot_autograd import graph_compile
from torch._functorch._aot_autograd.aot_autograd_result import GenericCompiledBackward, InductorOutput
from torch._functorch._aot_autograd.autograd_cache import (
    AOTAutogradCache,
    AOTAutogradCacheDetails,
    AOTAutogradCachePickler,
    BypassAOTAutogradCache,
    check_cacheable,
    create_fx_config,
    sanitize_gm_for_cache,
)
from torch._functorch._aot_autograd.schemas import AOTAutogradCacheInfo, SerializableAOTDispatchCompiler
from torch._inductor.codecache import BypassFxGraphCache, FxGraphCache
from torch._inductor.output_code import OutputCode
from torch.fx.experimental.symbolic_shapes import guarding_hint_or_throw
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .artifact import GraphArtifact, dump, load_graph
from .options import Options
from .runtime.cache import Cache, digest_of
from .runtime.toolchain import host_cpu

__all__ = ["AotCache", "keeps"]

logger = logging.getLogger("accel")

SUFFIX = ".aot"
NAMESPACES = ("aten", "prims", "accel")
PACKAGES = ("accel", "accel.lowering", "accel.runtime", "accel.csrc")


@dataclasses.dataclass(frozen=True)
class AotCache:
    """The cache as one call of the backend sees it; handed through AOTAutograd as its `compiler_config_extra`.

    Attributes:
        given: what Dynamo gave the backend, of which a frozen graph's constants are made; AOTAutograd has fake tensors only.
    """

    options: Options
    given: Sequence = ()

    def arguments(self, forward: Callable) -> dict[str, object]:
        """Arguments of torch's `aot_autograd` that have it ask this cache, with `forward` as the compiler of forward graphs."""
        _join()
        return {"fw_compiler": SerializableAOTDispatchCompiler(OutputCode, forward), "compiler_config_extra": self}

    def load(self, mod: torch.fx.GraphModule, args: list, aot_config: object) -> tuple[Callable | None, object]:
        """The callable of an equal graph, or None and a config under which AOTAutograd will hand its result to `_Joined.save`."""
        started = time.perf_counter()
        try:
            key = self._key(mod, args, aot_config)
            compiled = self._read(key, args, aot_config)
        except Exception as reason:  # torch's internals, a pickle of another version: never worth more than a compilation
            logger.debug("not kept for a warm start: %s: %s", type(reason).__name__, reason)
            return None, aot_config
        if compiled is not None:
            logger.info("a graph was loaded from the cache in %.2f s", time.perf_counter() - started)
            return compiled, aot_config
        info = AOTAutogradCacheInfo(key, time.time_ns(), forward_symints=AOTAutogradCache._filter_backed_symints(args))
        return None, dataclasses.replace(aot_config, cache_info=info)

    def _key(self, mod: torch.fx.GraphModule, args: list, aot_config: object) -> str:
        gm = getattr(mod, "gm", mod)
        with sanitize_gm_for_cache(gm):
            check_cacheable(gm)
            _check_operators(gm)
            _check_inputs(args)
            details = _Details(gm, args, aot_config, _salt(self.options))
            return digest_of("aot", AOTAutogradCachePickler(gm).get_hash(details))

    def _read(self, key: str, args: list, aot_config: object) -> Callable | None:
        content = Cache(self.options.cache_dir).read(key, SUFFIX)
        if content is None:
            return None
        entry = pickle.loads(content)
        entry.compiled_fw.given = self.given
        if entry.guards_expr:
            hints = [guarding_hint_or_throw(size) for size in AOTAutogradCache._filter_backed_symints(args)]
            if not AOTAutogradCache.evaluate_guards(entry.guards_expr, hints):
                return None
        return entry.wrap_post_compile(args, aot_config, create_fx_config())


class _Details(AOTAutogradCacheDetails):
    """What a compiled graph depends on: torch's list without what inductor alone reads, and our own salt."""

    def __init__(self, gm: torch.fx.GraphModule, args: Sequence, aot_config: object, salt: str):
        self.accel = salt
        # Inputs that overlap are compiled in another way.
        self.storages = _places_in_storages(args)
        super().__init__(gm, args, aot_config, create_fx_config())

    def _init_fx_graph_hash_details(self, gm: torch.fx.GraphModule, example_inputs: Sequence, fx_config: dict) -> None:
        try:
            FxGraphCache._check_can_cache(gm, example_inputs, fx_config)
        except BypassFxGraphCache as reason:
            raise BypassAOTAutogradCache(str(reason)) from reason
        self.gm, self.example_inputs = gm, list(example_inputs)
        self.default_dtype, self.torch_version = torch.get_default_dtype(), torch.__version__


def _places_in_storages(args: Sequence) -> list[tuple[int, int] | None]:
    """For inputs that share memory: the position of the first of those that do, and where in the memory the input begins."""
    storages = [value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None for value in args]
    is_shared = [storage is not None and storages.count(storage) > 1 for storage in storages]
    return [(storages.index(storage), value.storage_offset()) if shared else None for value, storage, shared in zip(args, storages, is_shared)]


def _check_inputs(args: Sequence) -> None:
    """Refuse tensors whose class says in Python what operators do: that is traced, and in no key."""
    for value in args:
        if is_traceable_wrapper_subclass(value):
            raise BypassAOTAutogradCache(f"an input is a {type(value).__name__}")


def _check_operators(gm: torch.fx.GraphModule) -> None:
    """Refuse operators of others: tracing runs their Python (what they are composed of, their gradients), which is in no key."""
    for module in gm.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            packet = node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else node.target
            if isinstance(packet, torch._ops.OpOverloadPacket) and packet._qualified_op_name.partition("::")[0] not in NAMESPACES:
                raise BypassAOTAutogradCache(f"the operator {packet._qualified_op_name} is neither torch's nor ours")


def _salt(options: Options) -> str:
    """What else decides: the options, this version of accel, and the machine that it compiles on."""
    return digest_of(repr(options), *_sources(), *host_cpu(), str(os.cpu_count()))


@functools.cache
def _sources() -> tuple[str, ...]:
    """Path, size and time of every source file of accel."""
    found = []
    for package in PACKAGES:
        folder = Path(importlib.util.find_spec(package).submodule_search_locations[0])
        for path in sorted((*folder.rglob("*.py"), *folder.rglob("*.h"))):
            stat = path.stat()
            found.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return tuple(found)


def keeps(options: Options) -> bool:
    """Whether graphs compiled under `options` may be kept.

    Not those with texts to write, and none while a user's own lowerings are registered: their code is in no key.
    """
    registry = sys.modules.get("accel.lowering.registry")
    own = registry is None or all(entry.function.__module__.startswith("accel.") for entry in registry.all_lowerings())
    return own and options.dump_dir is None and _fits_torch()


@functools.cache
def _fits_torch() -> bool:
    return "compiler_config_extra" in inspect.signature(aot_autograd.aot_module_simplified).parameters and hasattr(aot_autograd, "AOTAutogradCache")


@dataclasses.dataclass
class _Forward(InductorOutput):
    """A forward or inference graph in an entry of AOTAutograd's."""

    artifact: GraphArtifact
    given = ()  # AotCache.given, once the entry is read

    def pre_save(self) -> None:
        pass

    def load(self, example_inputs: Sequence) -> Callable:
        return load_graph(self.artifact, self.given)

    def post_compile(self, result: Callable, fx_config: dict) -> Callable:
        return result


@dataclasses.dataclass
class _Backward(GenericCompiledBackward, _Forward):
    """A backward graph; torch's base class keeps Dynamo out of it."""


class _Joined(AOTAutogradCache):
    """AOTAutograd's cache for its callers: ours for our graphs, torch's for all others."""

    @staticmethod
    def try_load(mod, args, aot_config, compiler_config_extra, *others, **more):
        if isinstance(compiler_config_extra, AotCache):
            return compiler_config_extra.load(mod, args, aot_config)
        return AOTAutogradCache.try_load(mod, args, aot_config, compiler_config_extra, *others, **more)

    @staticmethod
    def make_entry(compiled_fw_func, compiled_bw_func, *others, **more):
        artifact = getattr(compiled_fw_func, "_accel_artifact", None)
        if artifact is None:
            return AOTAutogradCache.make_entry(compiled_fw_func, compiled_bw_func, *others, **more)
        with config.patch(bundled_autograd_cache=False):  # the form without inductor's output in it
            entry = AOTAutogradCache.make_entry(compiled_fw_func, compiled_bw_func, *others, **more)
        entry.compiled_fw = _Forward(artifact)
        if entry.compiled_bw is not None:
            torchs = entry.compiled_bw
            entry.compiled_bw = _Backward(compiled_bw_func._accel_artifact, torchs.backward_state_indices, torchs.num_symints_saved_for_bw_)
        for field in dataclasses.fields(entry):
            if field.name.endswith("_str"):  # the graphs as texts, for logs
                setattr(entry, field.name, None)
        return entry

    @staticmethod
    def save(key, entry, remote):
        if not isinstance(entry.compiled_fw, _Forward):
            return AOTAutogradCache.save(key, entry, remote)
        try:
            with torch.utils._python_dispatch._disable_current_modes():
                content = dump(entry)
            Cache(entry.compiled_fw.artifact.cache_dir).publish(key, SUFFIX, content)
        except Exception as reason:  # something in the graph has no form on disk, or the disk is full: the next start compiles again
            logger.debug("not kept for a warm start: %s: %s", type(reason).__name__, reason)


@functools.cache
def _join() -> None:
    """Have AOTAutograd ask `_Joined`."""
    aot_autograd.AOTAutogradCache = graph_compile.AOTAutogradCache = _Joined
