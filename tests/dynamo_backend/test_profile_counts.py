"""The profiler's proof: for kernels of every kind, odd sizes and three machines, derived counts are the intrinsics' counts.

Cycles are those of a packet interpreter that walks the kernels, and the generated C computes with DVX instructions alone.
"""

from __future__ import annotations

import functools
import re

import pytest
import torch
import torch.nn.functional as F
from packet_interpreter import kernel_cycles

from accel.csrc import isa
from accel.csrc.machine import PRESETS
from accel.lowering.cost import partition_cost
from accel.lowering.dependence import block_graph
from accel.lowering.packets import schedule_block
from accel.lowering.vector_ir import LoadScalar, instructions
from accel.options import Options
from accel.profile_compiler import record
from accel.profile_report import make_profile
from accel.runtime.profile import PartitionRun, measure_run


def tensor(*sizes):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(1))


def products(a, b, c):
    return F.gelu(a @ b + c), a.double() @ b.double(), (a @ b).half()


def convolutions(x, w, wide, ww, depthwise, wd):
    """Strided, Winograd (3 x 3 over many channels and pixels) and depthwise."""
    return F.relu(F.conv2d(x, w, stride=2, padding=1)), F.conv2d(wide, ww, padding=1), F.conv2d(depthwise, wd, padding=2, groups=7)


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True)


def rows(x):
    return x.softmax(-1), F.layer_norm(x, x.shape[-1:]), x.sum(0), x.mean(1), x.argmax(-1), x.std(1), x.amax((0, 1))


def maps(x, y):
    return torch.sin(x) * y, torch.where(x > 0, x, y.exp()), (x * 3).to(torch.int32) + 1, x.double().tanh(), (x * 2).to(torch.bfloat16), (x * 9).long() // 3


def scans(x):
    return x.cumsum(0), x.cumsum(-1), x.exp().cumprod(1)


def indexed(x, index):
    return x[index], torch.gather(x, 1, index[:, None] % 7), torch.zeros(9, x.shape[1]).index_add(0, index % 9, x[: len(index)]), F.embedding(index, x)


def sorted_(x):
    return *x.sort(-1), *x.topk(3, dim=0)


def recurrent():
    torch.manual_seed(2)
    layers = torch.nn.ModuleList([torch.nn.GRU(5, 11), torch.nn.RNN(5, 11)])
    return lambda x: tuple(layer(x)[0] for layer in layers)


def windows(x):
    return F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 2), F.interpolate(x, scale_factor=2, mode="bilinear"), F.pad(x, (1, 2, 0, 3), mode="reflect")


PROGRAMS = {
    "products": (products, (tensor(13, 37), tensor(37, 45), tensor(45))),
    "convolutions": (
        convolutions,
        (tensor(2, 3, 17, 19), tensor(5, 3, 3, 3), tensor(1, 33, 27, 25), tensor(9, 33, 3, 3), tensor(1, 7, 9, 10), tensor(7, 1, 5, 5)),
    ),
    "attention": (attention, (tensor(2, 3, 9, 20), tensor(2, 3, 9, 20), tensor(2, 3, 9, 20))),
    "rows": (rows, (tensor(7, 77),)),
    "maps": (maps, (tensor(3, 41), tensor(41))),
    "scans": (scans, (tensor(5, 39),)),
    "indexed": (indexed, (tensor(11, 37), torch.tensor([3, 0, 10, 3, 7]))),
    "sorted": (sorted_, (tensor(5, 39),)),
    "recurrent": (recurrent(), (tensor(3, 2, 5),)),
    "windows": (windows, (tensor(2, 3, 11, 13),)),
}
# Programs on machines with other vector lengths and register counts.
OTHERS = [(name, "host") for name in ("products", "rows", "scans", "windows")] + [(name, "dvx-m16") for name in ("products", "convolutions", "maps", "sorted")]


@functools.cache
def recorded(name, machine):
    """The recording of a program's run with counting intrinsics, and what eager gives."""
    fn, inputs = PROGRAMS[name]
    with torch.no_grad():
        return record(fn, inputs, {}, Options.parse({"machine": machine}), verify=True), fn(*inputs)


@pytest.mark.parametrize("name, machine", [*((name, "dvx-h1") for name in PROGRAMS), *OTHERS])
def test_derived_counts_are_those_of_the_intrinsics(name, machine):
    recording, expected = recorded(name, machine)
    options = Options.parse({"machine": machine})
    profile = make_profile(recording, options.machine)
    differing = {text: (n, profile.counted.get(text)) for text, n in profile.instructions.items() if n != profile.counted.get(text)}
    assert profile.is_exact and not differing
    assert profile.total.cycles == sum(profile.total.buckets.values()) and profile.total.pipelined_cycles <= profile.total.cycles
    torch.testing.assert_close(profile.result, expected, rtol=2e-3, atol=2e-3)


def depends_on_values(kernel) -> bool:
    """Whether a kernel reads scalars out of memory or predicates, on which its loops and branches may depend."""
    return any(isinstance(node, LoadScalar) or node.scalar for node in instructions(kernel.body))


@pytest.mark.parametrize("name", PROGRAMS)
def test_cycles_are_those_of_the_packet_interpreter(name):
    machine = PRESETS["dvx-h1"]

    def packets_of(nodes):
        return schedule_block(block_graph(nodes, machine.lanes), machine).packets

    for call in recorded(name, "dvx-h1")[0].calls:
        cost = partition_cost(call.lowered.distinct, call.lowered.calls, machine)
        kernels, _ = measure_run(PartitionRun("p", cost, call.counters, call.symbols), machine)
        interpreted = dict.fromkeys(range(len(kernels)), 0)
        for bound, place in zip(call.lowered.calls, (own.kernel for own in cost.calls)):
            sizes = {param.name: argument for param, argument in zip(bound.kernel.params, bound.arguments) if param.memory_type is None}
            if not depends_on_values(bound.kernel):
                interpreted[place] += kernel_cycles(bound.kernel.body, machine, sizes, packets_of)
        for place, cycles in interpreted.items():
            assert cycles in (0, kernels[place].cycles - kernels[place].buckets.get("ddr", 0)), kernels[place].name
        assert any(interpreted.values())


# What a statement of a kernel may look like; `integer` is arithmetic on int64 names, without a pointer behind it.
INTEGER = r"[\w ()+*/%<>=!?:,-]*"
CALL = re.compile(r"(?:(?:const (?P<type>\w+) )?(?P<result>\w+) = )?(?P<name>dvx_\w+)\((?P<arguments>.*)\);$")
MOVE = re.compile(r"(?:(?:const )?dvx_\w+ )?\w+ = (?P<source>\w+);$")
PLAIN = [
    re.compile(pattern + "$")
    for pattern in (
        r"DVX_(BLOCK|UNROLL)\(\d+\);?", r"DVX_PROFILE_BEGIN\(team->rt\);", r"dvx_barrier\(team\);", r"\}( else \{)?",
        rf"(for|if) \({INTEGER}(; {INTEGER}; {INTEGER})?\) \{{", rf"const int64_t \w+ = {INTEGER};",
        r"(\(void\)\w+; ?)+", rf"\w+ \+= ctx \* \({INTEGER}\);",
    )
]  # fmt: skip


def foreign_lines(body: str) -> list[str]:
    """The statements of a kernel that are not calls of DVX intrinsics on whole vectors, moves of one, or integer arithmetic."""
    vectors: set[str] = set()
    found = []
    for line in map(str.strip, body.splitlines()):
        call, move = CALL.match(line), MOVE.match(line)
        is_intrinsic = call is not None and (call["name"] in isa.C_NAMES or re.fullmatch(r"dvx_ld(index)?_\w+", call["name"]))
        if is_intrinsic:
            if call["type"] in {f"dvx_{kind}" for kind in isa.REGISTER_TYPES}:
                vectors.add(call["result"])
            words = [part.strip() for part in call["arguments"].split(",")]
            if any(word not in vectors and set(re.findall(r"\w+", word)) & vectors for word in words) or "[" in line:
                found.append(line)
        elif move and move["source"] in vectors:
            vectors |= set(re.findall(r"\w+(?= =)", line))
        elif (move and line.startswith(("dvx_", "const dvx_"))) or not any(pattern.match(line) for pattern in PLAIN):
            found.append(line)
    return found


def kernel_bodies(text: str) -> list[str]:
    """What stands between the braces of the functions that run kernels on a context."""
    return re.findall(r"^void \w+\(dvx_team [^\n]*\) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_compute_with_dvx_instructions_alone(name):
    for call in recorded(name, "dvx-h1")[0].calls:
        bodies = [body for _, text in call.lowered.source.units for body in kernel_bodies(text)]
        assert len(bodies) == len(call.lowered.distinct)
        assert [line for body in bodies for line in foreign_lines(body)] == []


@pytest.mark.parametrize(
    "line",
    ["float x = p0[3];", "p1[i] = 0;", "*p1 = 0;", "const dvx_sf v3 = v1 + v2;", "v1 = v1 * v2;", "const dvx_sf v3 = dvx_vfadd_sf(v1, v2 * v1);",
     "out[i] = a;", "const dvx_sf v3 = dvx_no_such_sf(v1);", "const int64_t n = p0[i];", "const double y = 2.0 * 3.0;", "memcpy(p0, p1, 4);"],
)  # fmt: skip
def test_foreign_arithmetic_would_be_found(line):
    known = "const dvx_sf v1 = dvx_vld_sf(p0 + (i*4 + 3));\nconst dvx_sf v2 = v1;\nv2 = v1;\nconst int64_t n = dvx_ld_d(p0 + (i));\n"
    assert foreign_lines(known) == []
    assert foreign_lines(known + line) == [line]
