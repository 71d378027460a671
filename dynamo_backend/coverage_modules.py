"""What the module matrix runs: PyTorch's ModuleInfo samples, as calls of one module on tensors.

Like coverage_cases.py, it imports torch.testing._internal. (module, dtype, mode) -> Samples.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import torch

from .coverage_cases import Case, Sample, make_sample, spread
from .coverage_compare import copy_tensors

__all__ = ["MODES", "ModuleSample", "module_cases", "module_samples"]

# How a module is run. inference: eval() under no_grad.   eval, train: in that mode, forward and backward.
MODES = ("inference", "eval", "train")

_INFOS: dict[str, object] = {}


@dataclasses.dataclass(frozen=True)
class ModuleSample(Sample):
    """A call of a module, which every run gets afresh: `owner` is never run.

    Attributes:
        owner: the module in its mode.   args, kwargs: of its forward.
    """

    owner: torch.nn.Module
    args: Sequence
    kwargs: dict

    def fresh(self, dtype: torch.dtype | None = None) -> tuple[Callable, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """A copy of the module as a function, copies of its inputs, and its own tensors; of another dtype if told."""
        module = copy.deepcopy(self.owner)
        module = module if dtype is None else module.to(dtype)
        function = make_sample(self.text, module, self.args, self.kwargs).function
        return function, copy_tensors(self.tensors, dtype), (*module.parameters(), *module.buffers())


def module_cases(pattern: str = "", dtypes: Sequence[str] = (), modes: Sequence[str] = ()) -> list[Case]:
    """The cells that ModuleInfo has samples for.

    Args: pattern: regular expression that is searched for in names such as nn.Conv2d.
        dtypes: those asked for; of none, float32.   modes: of MODES; of none, all, but eval alone where it differs from train.
    """
    cases = []
    for name, info in _module_infos().items():
        own = [mode for mode in MODES if (mode in modes if modes else mode != "eval" or info.train_and_eval_differ)]
        if re.search(pattern, name):
            cases += [Case(name, dtype, mode) for dtype in dtypes or ("float32",) for mode in own if getattr(torch, dtype) in info.dtypes]
    return cases


def _module_infos() -> dict[str, object]:
    """Name -> ModuleInfo, in the database's order."""
    if not _INFOS:
        from torch.testing._internal.common_modules import module_db

        _INFOS.update({info.name: info for info in module_db})
    return _INFOS


def module_samples(case: Case, n_samples: int | None) -> Iterator[ModuleSample]:
    """Samples of one cell, the same ones in every run: `n_samples` spread over ModuleInfo's list, None for all."""
    info = _module_infos()[case.op]
    torch.manual_seed(zlib.crc32(case.op.encode()))
    drawn = info.module_inputs_func(info, "cpu", getattr(torch, case.dtype), requires_grad=case.variant != "inference", training=case.variant == "train")
    listed = [given for given in drawn if given.forward_input is not None]
    for index in spread(listed, n_samples):
        yield _sample(case, info.module_cls, listed[index])


def _sample(case: Case, module_class: type, given) -> ModuleSample:
    construct = given.constructor_input
    module = module_class(*construct.args, **construct.kwargs).to(getattr(torch, case.dtype)).train(case.variant == "train")
    called = make_sample("module", module, given.forward_input.args, given.forward_input.kwargs)
    arguments = ", ".join([*map(repr, construct.args), *(f"{key}={value!r}" for key, value in construct.kwargs.items())])
    text = called.text.replace("module", f"{case.op}({' '.join(arguments.split())})", 1)
    return ModuleSample(text, called.function, called.tensors, module, given.forward_input.args, given.forward_input.kwargs)
