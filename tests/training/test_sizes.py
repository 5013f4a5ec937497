"""log p(N) of a batch, against a loop over its molecules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from symdiff_plugin.checks import enable_checks
from symdiff_plugin.edm import import_edm
from symdiff_plugin.sizes import LogProbabilities

HISTOGRAM = {5: 10, 3: 7, 9: 1, 8: 2}
LOG_P = torch.log(torch.tensor([0.5, 0.35, 0.05, 0.1]))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_each_size_has_its_own_probability(device: str) -> None:
    table = LogProbabilities(list(HISTOGRAM), LOG_P)
    sizes = torch.tensor([9, 5, 5, 3, 8], device=device)
    assert table(sizes).tolist() == LOG_P[[2, 0, 0, 1, 3]].tolist()


@pytest.mark.edm
@pytest.mark.parametrize("name", ["qm9", "qm9_second_half", "geom"])
def test_edms_distribution_is_upstreams_to_the_last_bit(name: str) -> None:
    histogram = import_edm("configs.datasets_config").get_dataset_info(name, False)["n_nodes"]
    counts = np.array(list(histogram.values()))
    log_p = torch.log(torch.from_numpy(counts / np.sum(counts)).float() + 1e-30)
    sizes = torch.tensor(list(histogram))[torch.randint(len(histogram), (500,))]
    expected = [log_p[list(histogram).index(int(size))].item() for size in sizes]
    found = import_edm("qm9.models").DistributionNodes(histogram).log_prob(sizes)
    assert found.dtype == torch.float32
    assert found.tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("missing", [0, 2, 4, 10, 11, 1000, -1])
def test_a_size_without_a_probability_gets_no_other_sizes(missing: int, device: str) -> None:
    table = LogProbabilities(list(HISTOGRAM), LOG_P)
    sizes = torch.tensor([5, missing, 3], device=device)
    if device == "cpu":
        with pytest.raises(SystemExit, match=f"hold molecules of {missing} atoms, of which") as stop:
            table(sizes)
        assert "\n" not in str(stop.value)
        return
    assert table(sizes).isnan().tolist() == [False, True, False]
    enable_checks()
    try:
        with pytest.raises(SystemExit, match=f"hold molecules of {missing} atoms, of which"):
            table(sizes)
    finally:
        enable_checks(False)
