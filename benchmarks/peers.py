"""The backends: name -> what makes a callable of a case. One that is not installed, or cannot take a case, says why.

All get float32 at full precision and the same number of threads. A callable takes torch tensors and returns torch tensors,
without copies where the peer's own interface can do without.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cases import Case

__all__ = ["BACKENDS", "LeftOut", "floor_backend", "prepare"]


class LeftOut(Exception):
    """A backend cannot take part: a sentence that says why."""


def prepare(backend: str, case: Case, module: nn.Module, inputs: tuple) -> Callable:
    """`case` compiled by `backend`, ready to be timed: a call is one inference, or one training step.

    Raises:
        LeftOut: the backend is not installed, or cannot take the case.
    """
    run = BACKENDS[backend](case, module, inputs)
    return training_step(module, run) if case.kind == "training" else run


def training_step(module: nn.Module, run: Callable) -> Callable:
    """Forward and backward: returns the loss and all gradients."""
    parameters = list(module.parameters())

    def step(*inputs):
        for parameter in parameters:
            parameter.grad = None
        loss = run(*inputs)
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in parameters if parameter.grad is not None)]

    return step


def compiled_by(backend: object, is_frozen: bool = False, **options: object) -> Callable:
    """What makes a callable by torch.compile; `is_frozen` takes weights as constants, so training is left out."""

    def make(case: Case, module: nn.Module, inputs: tuple) -> Callable:
        if is_frozen and case.kind == "training":
            raise LeftOut("weights change in training")
        return torch.compile(module, backend=backend, options=options) if options else torch.compile(module, backend=backend)

    return make


def floor_backend(graph_module: torch.fx.GraphModule, example_inputs: list) -> Callable:
    """AOTAutograd in front of a compiler that computes nothing and allocates the outputs: what a call costs at least."""
    from torch._dynamo.backends.common import aot_autograd

    def allocate_outputs(compiled: torch.fx.GraphModule, _: list) -> Callable:
        outputs = [node.meta["val"] for node in compiled.graph.output_node().args[0]]
        shapes = [(tuple(value.shape), value.stride(), value.dtype) for value in outputs]

        def run(arguments: list) -> list:
            arguments.clear()
            return [torch.empty_strided(sizes, strides, dtype=dtype) for sizes, strides, dtype in shapes]

        run._boxed_call = True
        return run

    return aot_autograd(fw_compiler=allocate_outputs, inference_compiler=allocate_outputs)(graph_module, example_inputs)


def openvino(case: Case, module: nn.Module, inputs: tuple) -> Callable:
    """OpenVINO's own converter and CPU plugin; its default precision would be bfloat16 on CPUs that have it."""
    require("openvino", case)
    import openvino as ov

    converted = ov.convert_model(module, example_input=inputs if len(inputs) > 1 else inputs[0], input=[tuple(x.shape) for x in inputs])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()

    def run(*tensors):
        results = request.infer([tensor.numpy() for tensor in tensors], share_inputs=True, share_outputs=True)
        return [torch.from_numpy(array) for array in results.values()]

    return run


def onnxruntime(case: Case, module: nn.Module, inputs: tuple) -> Callable:
    """ONNX Runtime's CPU provider on what torch.onnx exports."""
    require("onnxruntime", case)
    require("onnxscript", case)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(module, inputs, path)
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*tensors):
        return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, (tensor.numpy() for tensor in tensors))))]

    return run


def export_onnx(module: nn.Module, inputs: tuple, path: Path) -> None:
    """By the exporter built on torch.export; by the one built on TorchScript where that fails, as it may for recurrent layers."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # both print their progress
        try:
            torch.onnx.export(module, inputs, str(path), dynamo=True, verbose=False)
        except Exception:  # whatever it is, the other exporter may do
            torch.onnx.export(module, inputs, str(path), dynamo=False)


def require(package: str, case: Case) -> None:
    """Raises LeftOut where `package` is missing, and for what no exported graph can do."""
    if case.kind == "training":
        raise LeftOut("no training")
    if case.kind == "decode":
        raise LeftOut("the exported graph does not write into the model's cache")
    if importlib.util.find_spec(package) is None:
        raise LeftOut(f"{package} is not installed: pip install -c constraints.txt -e '.[bench]'")


BACKENDS = {
    "eager": lambda case, module, inputs: module,
    "inductor": compiled_by("inductor"),
    "inductor-freeze": compiled_by("inductor", is_frozen=True, freezing=True),
    "openvino": openvino,
    "onnxruntime": onnxruntime,
    "accel": compiled_by("accel"),
    "accel-freeze": compiled_by("accel", is_frozen=True, freeze=True),
}
