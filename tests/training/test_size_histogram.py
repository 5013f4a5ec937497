"""The sizes of a run's data as it filtered them, and log p(N) of a batch against a loop over its molecules."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.sampling import sample_molecules
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.hooks import usual_size
from symdiff_plugin.training.debug_checks import enable_checks
from symdiff_plugin.training.size_histogram import LogProbabilities, NearestSize, commonest, histogram

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


def test_the_nearest_size_is_taken_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = NearestSize({17: "a", 19: "b", 23: "c"})
    assert "".join(sizes[n] for n in (19, 18, 18, 30, 3)) == "baaca"
    assert list(sizes) == [17, 19, 23]  # nothing is added
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines] == ["18", "30", "3"]


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ({"dataset": "qm9"}, HISTOGRAM),
        ({"dataset": "qm9", "filter_n_atoms": None, "filter_molecule_size": 3}, HISTOGRAM),
        ({"dataset": "qm9_second_half", "filter_n_atoms": 9}, {9: 1}),
        ({"dataset": "qm9", "filter_n_atoms": 4}, {4: 1}),  # of one's own data: EDM's histogram does not have it
        ({"dataset": "geom", "filter_n_atoms": 9}, HISTOGRAM),
        ({"dataset": "geom", "filter_molecule_size": 8}, {5: 10, 3: 7, 8: 2}),
    ],
)
def test_the_histogram_is_what_the_runs_filter_leaves(args: dict, kept: dict[int, int]) -> None:
    found = histogram(Namespace(**args), HISTOGRAM)
    assert list(found.items()) == list(kept.items())  # in order: EDM's draws depend on it


@pytest.mark.edm
@pytest.mark.parametrize(
    ("name", "remove_h", "size"),
    [("qm9", False, 19), ("qm9_second_half", False, 19), ("geom", False, 44), ("qm9", True, 9)],
)
def test_the_commonest_size_is_edms_example_and_without_hydrogen_another(name: str, remove_h: bool, size: int) -> None:
    info = import_edm("configs.datasets_config").get_dataset_info(name, remove_h)
    assert usual_size(Namespace(dataset=name), info) == size
    assert commonest({7: 3, 5: 3, 9: 1}) == 5


@pytest.mark.edm
def test_a_filtered_run_draws_molecules_of_its_own_size(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["args"]["filter_n_atoms"] = 15
    (copied / "config.json").write_text(json.dumps(config))
    run = load_run(copied)
    assert set(map(len, sample_molecules(run, 12, 12).molecules)) == {15}
    assert run.nodes_dist.log_prob(torch.tensor([15])).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.edm
@pytest.mark.parametrize(
    ("args", "remove_h", "size"),
    [
        ({"dataset": "qm9"}, True, 9),
        ({"dataset": "qm9", "filter_n_atoms": 15}, False, 15),
        ({"dataset": "qm9"}, False, 19),
    ],
)
def test_chains_and_sweeps_are_of_the_runs_usual_size(args: dict, remove_h: bool, size: int) -> None:
    sampling = import_edm("qm9.sampling")
    info = import_edm("configs.datasets_config").get_dataset_info("qm9", remove_h)
    seen: list[int] = []

    class Stop(Exception):
        pass

    class Flow:
        T = 2

        def sample_chain(self, n_samples: int, n_nodes: int, *rest: object, **more: object) -> None:
            seen.append(n_nodes)
            raise Stop

        def sample(self, n_samples: int, n_nodes: int, node_mask: torch.Tensor, *rest: object, **more: object) -> None:
            seen.extend(node_mask.sum((1, 2)).unique().int().tolist())
            raise Stop

    given = Namespace(**args, context_node_nf=0, probabilistic_model="diffusion", include_charges=True)
    for n_nodes in (None, 4):
        with pytest.raises(Stop):
            sampling.sample_chain(given, "cpu", Flow(), 1, info, n_nodes=n_nodes)
    property_range = {"params": (torch.tensor(1.0), torch.tensor(2.0))}
    norms = {"alpha": {"mean": 0.0, "mad": 1.0}}
    prop_dist = Namespace(distributions={"alpha": dict.fromkeys(range(30), property_range)}, normalizer=norms)
    with pytest.raises(Stop):
        sampling.sample_sweep_conditional(given, "cpu", Flow(), info, prop_dist)
    assert seen == [size, 4, size]
