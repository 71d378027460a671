"""A built partition as a Python callable: one generated function, one C call.

Everything that can be known before the call is in the text of the function: which argument is what, sizes and strides,
the arena's size. What is left per call is taking the arguments apart, allocating outputs and the call itself.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..csrc.abi import (
    STATUS_INDEX_ERROR, STATUS_LENGTHS, STATUS_NEGATIVE_DEVIATION, STATUS_NEGATIVE_LENGTH, STATUS_NO_PROBABILITY, STATUS_REPEATS, STATUS_ZERO_DIVISION,
    DTYPE_BYTES, PartitionSource, TensorArg,
)  # fmt: skip
from .arena import Arena, Block
from .build import BuiltPartition
from .huge_pages import advise_huge_pages, is_large
from .library import make_counters, make_counting_runtime
from .threads import shared_runtimes

try:  # what inductor's code calls: half the time of torch.empty_strided, and no autograd
    from torch._C._dynamo.guards import _empty_strided_cpu, _reinterpret_tensor
except ImportError:

    def _empty_strided_cpu(sizes: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty_strided(sizes, strides, dtype=dtype)

    def _reinterpret_tensor(base: Tensor, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Tensor:
        return base.detach().as_strided(sizes, strides, base.storage_offset() + offset)

__all__ = ["DTYPES", "Executor", "shared_arena"]

DTYPES = {
    "f32": torch.float32,
    "f64": torch.float64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}

# Eager's own words.
RUNTIME_ERRORS = {
    STATUS_ZERO_DIVISION: "ZeroDivisionError",
    STATUS_NO_PROBABILITY: "Expected p_in >= 0 && p_in <= 1 to be true, but got false.",
    STATUS_NEGATIVE_DEVIATION: "normal expects all elements of std >= 0.0",
    STATUS_LENGTHS: "segment_reduce(): Expected all rows of lengths along axis to sum to data.size(lengths.dim()-1) when !unsafe.",
    STATUS_NEGATIVE_LENGTH: "lengths contains negative value!",
    STATUS_REPEATS: "allocated size does not match required size",
}

_ARENA = Arena()
_COUNTING = threading.Lock()  # profiled kernels count through a static pointer of their shared object


def shared_arena() -> Arena:
    """The scratch memory that all partitions of this process share."""
    return _ARENA


class Executor:
    """Calls a built partition.

    Args:
        built: the result of `build(source)`.
        source: the manifest.
        threads: number of threads; None follows torch.get_num_threads() call by call.
        check_inputs: copy an input whose strides or dtype are not the manifest's before the call (and back after it, where the
            partition mutates it). For inputs that come out of eager nodes, whose fake tensors are a guess.
        constants: tensors bound to inputs for good, by index. They are no arguments then, and must keep their storage. What
            the partition derives from them alone is computed here, once (`accel_prepare`).

    Attributes:
        run: callable (args: list) -> list of output tensors. `args` holds the input tensors in manifest order, then an
            int per symbol; it is emptied, so that the caller's tensors are not kept alive. Raises IndexError where an
            index operand is out of range, RuntimeError where an integer is divided by 0. May be called from many threads at once.
        text: the Python text of `run`.
    """

    def __init__(
        self,
        built: BuiltPartition,
        source: PartitionSource,
        threads: int | None = None,
        *,
        check_inputs: bool = False,
        constants: Mapping[int, Tensor] | None = None,
    ):
        self.source = source
        self.built = built
        self.check_inputs = check_inputs
        self.constants = {index: _restride(tensor, tuple(tensor.shape), source.inputs[index].strides, tensor.dtype) for index, tensor in (constants or {}).items()}
        self._runtimes = shared_runtimes(source.max_contexts)
        self._prepared = self._prepare(threads) if source.prepared_bytes else None
        addresses = {index: tensor.data_ptr() for index, tensor in self.constants.items()}
        self.text = _call_text(source, check_inputs, addresses, self._prepared.address if self._prepared else None)
        bound = {f"{name}{index}": tensor for index, tensor in self.constants.items() for name in ("_i", "_given")}
        self._names = {**_call_names(built, source), **bound, "_prepared": self._prepared}  # `run` alone keeps what it needs
        names = {"_runtimes": self._runtimes, "_n_threads": torch.get_num_threads}
        n_threads = "_n_threads()" if threads is None else str(threads)
        self.run = self._run_discarding_counts if built.is_profile else self._define(f"_runtimes[{n_threads}]", names)

    def __call__(self, *args) -> list[Tensor]:
        return self.run(list(args))

    def run_counted(self, args: list) -> tuple[list[Tensor], list[int]]:
        """`run` on one thread, with the counters of a build made with `profile=True` (zeros from any other build)."""
        counters = make_counters(self.source.n_counters)
        run = self._define("_runtime", {"_runtime": make_counting_runtime(counters, self.source.n_blocks)})
        with _COUNTING:
            return run(args), list(counters)[: self.source.n_counters]

    def _prepare(self, threads: int | None) -> Block:
        """What accel_prepare makes of the constants; inputs that are none, and outputs, are null pointers to it."""
        block = Block(self.source.prepared_bytes)
        pointers = [self.constants[index].data_ptr() if index in self.constants else 0 for index in range(len(self.source.inputs))]
        pointers += [0] * sum(map(_is_computed, self.source.outputs))
        counters = make_counters(self.source.n_counters)
        if self.built.is_profile:
            runtime = make_counting_runtime(counters, self.source.n_blocks)
        else:
            runtime = self._runtimes[threads or torch.get_num_threads()]
        buffers, sizes = (struct.pack(f"{len(values)}q", *values) for values in (pointers, [0] * len(self.source.symbols)))
        with _COUNTING:
            status = self.built.library.prepare(buffers, sizes, block.address, runtime)
        if status:
            _raise_status(status)
        return block

    def _run_discarding_counts(self, args: list) -> list[Tensor]:
        return self.run_counted(args)[0]

    def _define(self, runtime: str, names: Mapping[str, object]) -> Callable[[list], list[Tensor]]:
        """The function of `text` with `runtime` as the expression of its runtime argument."""
        scope = {**self._names, **names}
        exec(compile(self.text.replace("_RUNTIME", runtime), f"<accel {self.source.name}>", "exec"), scope)
        return scope["run"]


def _call_names(built: BuiltPartition, source: PartitionSource) -> dict[str, object]:
    """The globals of the generated function."""
    arena = shared_arena()
    n_pointers = len(source.inputs) + sum(map(_is_computed, source.outputs)) + (source.prepared_bytes != 0)
    return {
        "_entry": built.library.entry,
        "_pack_pointers": struct.Struct(f"{n_pointers}Q").pack,
        "_pack_sizes": struct.Struct(f"{len(source.symbols)}q").pack,
        "_empty": _empty_strided_cpu,
        "_advise": advise_huge_pages,
        "_view": _reinterpret_tensor,
        "_take": arena.take,
        "_give": arena.give,
        "_fail": _raise_status,
        "_restride": _restride,
        **{f"_dtype_{name}": dtype for name, dtype in DTYPES.items()},
    }


def _is_computed(output: TensorArg) -> bool:
    return output.aliases is None and output.view_of is None


def _call_text(source: PartitionSource, check_inputs: bool, constants: Mapping[int, int], prepared: int | None) -> str:
    """The Python text of `run`. `constants` maps a bound input's index to its address; `prepared` is an address, too."""
    computed = [index for index, output in enumerate(source.outputs) if _is_computed(output)]
    pointers = [hex(constants[index]) if index in constants else f"_i{index}.data_ptr()" for index in range(len(source.inputs))]
    pointers += [f"_o{index}.data_ptr()" for index in computed]
    pointers += [hex(prepared)] if prepared else []
    sizes = f"_pack_sizes({', '.join(source.symbols)})" if source.symbols else "b''"
    has_arena = source.arena_bytes != 0
    lines = [
        *_argument_lines(source, check_inputs, constants),
        *(f"_o{index} = _empty({_shape(source.outputs[index])}, _dtype_{source.outputs[index].dtype})" for index in computed),
        *(f"_advise(_o{index})" for index in computed if _may_be_large(source.outputs[index])),
        *([f"_block = _take({source.arena_bytes})"] if has_arena else []),
        f"_status = _entry(_pack_pointers({', '.join(pointers)}), {sizes}, {'_block.address' if has_arena else '0'}, _RUNTIME)",
        *(["_give(_block)"] if has_arena else []),
        "if _status: _fail(_status)",
        *_result_lines(source.outputs, check_inputs),
    ]
    return "def run(args):\n" + "".join(f"    {line}\n" for line in lines)


def _argument_lines(source: PartitionSource, check_inputs: bool, constants: Mapping[int, int]) -> list[str]:
    free = [index for index in range(len(source.inputs)) if index not in constants]
    names = [*(f"_i{index}" for index in free), *source.symbols]
    lines = [f"{', '.join(names)}, = args"] if names else []
    lines.append("args.clear()")
    if check_inputs:
        for index in free:
            tensor = source.inputs[index]
            lines.append(f"_given{index} = _i{index}")
            is_other = f"_i{index}.stride() != {_tuple(tensor.strides)} or _i{index}.dtype is not _dtype_{tensor.dtype}"
            lines.append(f"if {is_other}: _i{index} = _restride(_i{index}, {_shape(tensor)}, _dtype_{tensor.dtype})")
    return lines


def _result_lines(outputs: tuple[TensorArg, ...], check_inputs: bool) -> list[str]:
    lines = []
    for index, output in enumerate(outputs):
        if output.aliases is not None:
            given = f"_given{output.aliases}" if check_inputs else f"_i{output.aliases}"
            if check_inputs:
                lines.append(f"if {given} is not _i{output.aliases}: {given}.copy_(_i{output.aliases})")
            lines.append(f"_o{index} = {given}")
        elif output.view_of is not None:
            kind, base = output.view_of
            lines.append(f"_o{index} = _view(_{kind[0]}{base}, {_shape(output)}, {output.offset})")
    return [*lines, f"return [{', '.join(f'_o{index}' for index in range(len(outputs)))}]"]


def _shape(tensor: TensorArg) -> str:
    return f"{_tuple(tensor.sizes)}, {_tuple(tensor.strides)}"


def _may_be_large(tensor: TensorArg) -> bool:
    """Whether a tensor is large, or its size is known in the call only."""
    return any(isinstance(size, str) for size in tensor.sizes) or is_large(math.prod(tensor.sizes) * DTYPE_BYTES[tensor.dtype])


def _tuple(values: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, values))},)" if values else "()"


def _restride(tensor: Tensor, sizes: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`tensor` itself if its dtype and its strides agree wherever they matter, else a copy with these."""
    is_strided = all(size <= 1 or have == want for size, have, want in zip(sizes, tensor.stride(), strides)) or tensor.numel() == 0
    if is_strided and tensor.dtype == dtype:
        return tensor
    return torch.empty_strided(sizes, strides, dtype=dtype).copy_(tensor.detach())


def _raise_status(status: int) -> None:
    if status == STATUS_INDEX_ERROR:
        raise IndexError("index out of range in self")
    if status in RUNTIME_ERRORS:
        raise RuntimeError(RUNTIME_ERRORS[status])
    raise RuntimeError(f"accel: a partition returned the unknown status {status}")
