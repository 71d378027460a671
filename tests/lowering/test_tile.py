"""tile: register tiles and row blocks as the Machine has them."""

from __future__ import annotations

import pytest

from accel.csrc.machine import Machine
from accel.lowering.kernels.tile import LEAST_JOBS, choose_tile

AVX2 = Machine("avx2", vlen_bytes=32, n_vregs=16, l1_bytes=32 * 1024, l2_bytes=512 * 1024)
AVX512 = Machine("avx512", vlen_bytes=64, n_vregs=32, l1_bytes=48 * 1024, l2_bytes=1024 * 1024)
LARGE = [(128, 768, 768), (128, 3072, 768), (128, 50257, 768), (1500, 384, 1536), (1024, 1024, 1024)]


@pytest.mark.parametrize("m, n, k", LARGE)
def test_large_products_fill_the_registers_and_leave_some_to_load_ahead(m, n, k):
    tile = choose_tile(AVX512, "sf", m, n, k)
    assert tile.rows * tile.vectors == 24  # a tile of 5 x 5 spills
    assert choose_tile(AVX2, "sf", m, n, k).rows * choose_tile(AVX2, "sf", m, n, k).vectors == 12


@pytest.mark.parametrize("machine", [AVX2, AVX512])
@pytest.mark.parametrize("m", [8, 16, 24, 100])
def test_few_jobs_are_shared_evenly_by_two_contexts(machine, m):
    for n in range(16, 2048, 16):
        tile = choose_tile(machine, "sf", m, n, 256)
        n_panels = -(-n // (tile.vectors * machine.lanes))
        jobs = n_panels * -(-m // tile.row_block)
        n_tiles = -(-m // tile.rows)
        assert jobs % 2 == 0 or jobs >= 2 * LEAST_JOBS or n_tiles % 2, (n, tile)
