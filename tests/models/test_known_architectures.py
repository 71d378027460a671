"""Some of `make architectures`: one compilation with `dynamic=True` is right for two sizes, native and in one partition."""

import pytest

from architecture import examine
from architectures import ARCHITECTURES

NATIVE_SHARE = 0.98


@pytest.mark.parametrize("name", ["seq2seq_attention", "dlrm", "pointnet", "edge_convolution"])
def test_architecture_is_right_for_every_size_and_one_partition(name):
    finding = examine(ARCHITECTURES[name], ("dynamic",))
    assert finding.is_right, finding
    assert finding.native >= NATIVE_SHARE * finding.nodes > 0, finding.reasons
    assert (finding.graphs, finding.partitions, finding.recompiled) == (1, 1, 0)
