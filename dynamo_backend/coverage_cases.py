"""What the coverage matrix runs: PyTorch's OpInfo samples, as calls of one function on tensors.

The only file of the package that imports torch.testing._internal. (op, dtype, variant) -> Samples.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from .coverage_compare import copy_tensors

__all__ = ["DEFAULT_PLAN", "DTYPES", "VARIANTS", "Case", "Sample", "all_cases", "family_of", "make_sample", "samples_of", "spread"]

VARIANTS = ("static", "dynamic", "backward")
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
BACKWARD_DTYPES = frozenset({"float32", "float64", "float16", "bfloat16"})

# dtype: the variants that are run unless others are asked for
DEFAULT_PLAN = {
    "float32": VARIANTS, "float64": ("static",), "float16": ("static",), "bfloat16": ("static",), "int64": ("static",), "bool": ("static",),
}  # fmt: skip

MAX_LISTED = 200  # of an op's samples that are looked at to choose from

# (what the name begins with, family); the first that fits. Any other op is in the family of its OpInfo class.
FAMILIES = (
    (r"fft\.", "fft"),
    (r"special\.", "special functions"),
    (r"(linalg\.|cholesky|lu|qr|svd|triangular_solve|geqrf|ormqr|logdet|pinverse|matrix_exp|inverse|pca_lowrank|logaddexp_qr)", "linear algebra"),
    (r"(mm$|bmm|addmm|addmv|addr|addbmm|baddbmm|matmul|mv$|dot$|vdot|inner|einsum|tensordot|ger|outer|kron|cross|__rmatmul__|torch\.ops\.aten\._?scaled|nn\.functional\.(bi)?linear)", "matrix products"),
    (r"nn\.functional\.(conv|unfold|fold)", "convolution"),
    (r"(nn\.functional\..*pool|nn\.functional\.max_unpool|max_pool)", "pooling"),
    (r"nn\.functional\..*(norm|normalize)|(native_)?(batch|layer|group)_norm|_native_batch|_batch_norm|native_batch", "normalization"),
    (r"nn\.functional\.(scaled_dot|multi_head)|torch\.ops\.aten\._(safe|flash|efficient)", "attention"),
    (r"nn\.functional\..*(loss|entropy|similarity|pairwise|pdist|nll|kl_div)|cdist|dist$", "losses and distances"),
    (r"nn\.functional\.(interpolate|upsample|grid|pad|pixel|channel|affine)|grid_sampler|_upsample|constant_pad|torch\.ops\.aten\._upsample", "resampling and padding"),
    (r"nn\.functional\.(embedding|one_hot)|gather|scatter|index_|masked_|take|__getitem__|put|select|where|nonzero|argwhere|searchsorted|bucketize|histc|bincount|embedding", "indexing"),
    (r".*(dropout|rand|normal|bernoulli|multinomial|cauchy|exponential|geometric|uniform|poisson)|nn\.functional\.rrelu", "random numbers"),
    (r"nn\.functional\.", "activations"),
    (r"(cum|logcumsumexp|sort|msort|argsort|topk|kthvalue|median|nanmedian|mode|unique|quantile|nanquantile)", "scans and sorting"),
    (r"(empty|zeros|ones|full|eye|arange|linspace|logspace|new_|tril|triu|scalar_tensor|complex|polar|signal|logical_eye|_like)", "creation"),
)  # fmt: skip

CLASS_FAMILIES = {
    "UnaryUfuncInfo": "pointwise, one operand",
    "BinaryUfuncInfo": "pointwise, two operands",
    "ReductionOpInfo": "reductions",
    "SpectralFuncInfo": "fft",
    "ShapeFuncInfo": "views and shapes",
}
OTHER_FAMILY = "views, shapes and others"


@dataclasses.dataclass(frozen=True, order=True)
class Case:
    """One cell of the matrix."""

    op: str
    dtype: str
    variant: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """One call.

    Attributes:
        text: the call, with its tensors as t0, t1, …: what a reader of the matrix sees.
        function: takes the tensors; everything else is a constant of its code, as it would be in a user's.
        tensors: the arguments.
    """

    text: str
    function: Callable
    tensors: tuple[torch.Tensor, ...]

    def fresh(self, dtype: torch.dtype | None = None) -> tuple[Callable, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """For one run: the function, copies of the tensors (in `dtype` if given), and the tensors that the function owns."""
        return self.function, copy_tensors(self.tensors, dtype), ()


def all_cases(pattern: str = "", dtypes: Sequence[str] = (), variants: Sequence[str] = ()) -> list[Case]:
    """The cells that OpInfo has samples for.

    Args: pattern: regular expression that is searched for in op names.
        dtypes, variants: those asked for; of neither, DEFAULT_PLAN. Backward is run for floating-point dtypes alone.
    """
    cases = []
    for name, info in _op_infos().items():
        if re.search(pattern, name) is None:
            continue
        for dtype in dtypes or DEFAULT_PLAN:
            chosen = variants or (DEFAULT_PLAN.get(dtype, ("static",)) if not dtypes else ("static",))
            cases += [Case(name, dtype, variant) for variant in VARIANTS if variant in chosen and _is_supported(info, dtype, variant)]
    return cases


def _is_supported(info, dtype: str, variant: str) -> bool:
    torch_dtype = getattr(torch, dtype)
    if variant == "backward":
        return dtype in BACKWARD_DTYPES and info.supports_autograd and torch_dtype in info.supported_backward_dtypes("cpu")
    return torch_dtype in info.dtypes


_INFOS: dict[str, object] = {}


def _op_infos() -> dict[str, object]:
    """Full name -> OpInfo, in the database's order."""
    if not _INFOS:
        from torch.testing._internal import common_methods_invocations as database

        database.wrapper_set_seed = _call_without_seeding  # the seed is set outside, where Dynamo need not trace it
        _INFOS.update({(f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name): info for info in database.op_db})
    return _INFOS


def _call_without_seeding(op: Callable, *args: object, **kwargs: object) -> object:
    return op(*args, **kwargs)


def family_of(op: str) -> str:
    """The family under which the summary counts `op`."""
    for pattern, family in FAMILIES:
        if re.match(pattern, op):
            return family
    if op.startswith("nn.") and op not in _op_infos():
        return "modules"
    classes = [cls.__name__ for cls in type(_op_infos()[op]).__mro__] if op in _op_infos() else []
    return next((CLASS_FAMILIES[name] for name in classes if name in CLASS_FAMILIES), OTHER_FAMILY)


def samples_of(case: Case, n_samples: int | None) -> Iterator[Sample]:
    """Samples of one cell, the same ones in every run: `n_samples` spread over OpInfo's list, None for all.

    The last is an empty one where there are any and three or more are asked for; every second one is made non-contiguous.
    """
    info = _op_infos()[case.op]
    torch.manual_seed(zlib.crc32(case.op.encode()))
    drawn = info.sample_inputs("cpu", getattr(torch, case.dtype), requires_grad=case.variant == "backward")
    listed = list(drawn if n_samples is None else itertools.islice(drawn, MAX_LISTED))
    for position, index in enumerate(spread(listed, n_samples)):
        given = listed[index]
        given = _noncontiguous(given) if position % 2 == 1 else given
        yield make_sample(_function_name(info), info.op, (given.input, *given.args), given.kwargs)


def _noncontiguous(given):
    try:
        return given.noncontiguous()
    except RuntimeError:  # a sparse tensor has no strides
        return given


def spread(listed: Sequence, n_samples: int | None) -> list[int]:
    """Indices of `n_samples` of the list, an empty one among three or more where there is one; None for all."""
    last = len(listed) - 1
    if n_samples is None or n_samples > last:
        return list(range(last + 1))
    chosen = [round(step * last / max(1, n_samples - 1)) for step in range(n_samples)]
    is_empty = [any(tensor.numel() == 0 for tensor in _tensors(_arguments(given))) for given in listed]
    if n_samples > 2 and True in is_empty and not any(is_empty[index] for index in chosen):
        chosen[-1] = is_empty.index(True)
    return sorted(set(chosen))


def _arguments(given) -> tuple:
    """What the function of an OpInfo or ModuleInfo sample is called with."""
    if hasattr(given, "forward_input"):
        return given.forward_input.args, given.forward_input.kwargs
    return given.input, given.args, given.kwargs


def _function_name(info) -> str:
    return info.name if info.name.startswith("torch.") else f"torch.{info.name}"


def _tensors(value: object) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def make_sample(name: str, function: Callable, args: Sequence, kwargs: dict) -> Sample:
    """The call function(*args, **kwargs) as a function of its tensors alone; `name` stands for it in the text."""
    writer = _CallWriter()
    arguments = [writer.literal(value) for value in args] + [f"{key}={writer.literal(value)}" for key, value in kwargs.items()]
    body = ", ".join(arguments)
    namespace = {"call": function, **writer.constants}
    exec(compile(f"def sample({', '.join(writer.names.values())}):\n    return call({body})", f"<{name}>", "exec"), namespace)
    return Sample(f"{name}({body})", namespace["sample"], tuple(writer.tensors))


class _CallWriter:
    """Writes arguments as Python text: tensors as parameters, numbers as literals, anything else as a global."""

    def __init__(self):
        self.tensors: list[torch.Tensor] = []
        self.names: dict[int, str] = {}
        self.constants: dict[str, object] = {"torch": torch, "inf": float("inf"), "nan": float("nan")}

    def literal(self, value: object) -> str:
        """The text of one argument."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if value is None or type(value) in (bool, int, float, complex, str):
            return repr(value)
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return str(value)
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if isinstance(value, slice):
            return f"slice({self.literal(value.start)}, {self.literal(value.stop)}, {self.literal(value.step)})"
        if type(value) in (list, tuple, torch.Size):
            items = [self.literal(item) for item in value]
            return f"[{', '.join(items)}]" if type(value) is list else f"({''.join(f'{item}, ' for item in items)})"
        name = f"constant{len(self.constants)}"
        self.constants[name] = value
        return name

    def _tensor(self, tensor: torch.Tensor) -> str:
        if id(tensor) not in self.names:
            self.names[id(tensor)] = f"t{len(self.tensors)}"
            self.tensors.append(tensor)
        return self.names[id(tensor)]
