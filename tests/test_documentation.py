"""README.md and docs/: every snippet works, every flag, name and file that is mentioned is there."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from documentation import DOCUMENTS, GENERATED, ROOT, Fault, Parsed, Place, Snippet, codes, snippets, start
from documentation import stopping_at_parsing as stopping
from molecules import MOLECULES
from own_molecules import molecules, write_sdf

from symdiff_plugin.data.splits import make_molecule, tabulate
from symdiff_plugin.data.store import save_splits
from symdiff_plugin.evaluate.evaluation import metrics_table
from symdiff_plugin.evaluate.gamma_worth import LABELS
from symdiff_plugin.presets import PRESETS
from symdiff_plugin.report.folders import read_runs
from symdiff_plugin.report.tables import build_tables

TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS if name != GENERATED}
SNIPPETS = [snippet for name, text in TEXTS.items() for snippet in snippets(name, text)]
PYTHON = [snippet for snippet in SNIPPETS if snippet.language == "python"]
# Blocks that are neither Python nor shell, by how they begin; each has a test of its own below.
OUTPUT = "outputs/smoke: symdiff_tiny"
LAYOUT = "e3_diffusion_for_molecules/ "
CITATION = "@"
SHELL = [
    snippet
    for snippet in SNIPPETS
    if snippet.language in ("", "inline") and not snippet.text.startswith((OUTPUT, LAYOUT))
]
# Calls that are run, not only read: those that take seconds.
REAL = (
    "-m symdiff_plugin report", "-m symdiff_plugin benchmark curves", "-m symdiff_plugin data geom own",
    "-m symdiff_plugin evaluate --data test --datadir",
)  # fmt: skip
STUDY = ROOT / "docs" / "cpu_study" / "runs"


def named(snippet: Snippet) -> str:
    return f"{snippet.place} {snippet.text[:30].strip()}"


def only(kind: str) -> Snippet:
    (found,) = (snippet for snippet in SNIPPETS if snippet.text.startswith(kind))
    return found


@pytest.fixture(scope="module")
def qm9(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real molecules of QM9 as its three files; their properties are zero."""
    datadir = tmp_path_factory.mktemp("data")
    (datadir / "qm9").mkdir()
    rows = (
        make_molecule(m["index"], m["symbols"], np.ravel(m["positions"]).tolist(), [0.0] * 15, [0.0]) for m in MOLECULES
    )
    split = tabulate(rows, len(MOLECULES))
    save_splits(datadir, dict.fromkeys(("train", "valid", "test"), split))
    return datadir / "qm9"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documents take for granted: the user's molecules, GEOM's archive, trained runs."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "drugs_crude.msgpack").touch()
    (folder / "small").mkdir()
    for name in ("mine.sdf", "more.sdf.gz"):
        write_sdf(folder / name, molecules(2, 1))
    (folder / "folder_of_xyz").mkdir()
    (folder / "folder_of_xyz" / "water.xyz").write_text("3\nO\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    for name, run in (
        ("fp32", "symdiff_tiny"),
        ("bf16", "dit_tiny"),
        ("symdiff_tiny", "symdiff_tiny"),
        ("NAME", "mini"),
    ):
        shutil.copytree(STUDY / run, folder / "outputs" / name)
    return folder


@pytest.fixture
def place(tmp_path: Path, qm9: Path, inputs: Path, edm_path: Path) -> Place:
    return Place(tmp_path / "clone", qm9, inputs)


@pytest.mark.parametrize(
    "snippet",
    [pytest.param(s, id=named(s), marks=[pytest.mark.edm] if "import_edm" in s.text else []) for s in PYTHON],
)
def test_python(snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(snippet)


def run_python(snippet: Snippet) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(snippet.text, snippet.place, "exec"), names)
    return names


def test_the_snippet_of_ones_own_code_calls_the_network_in_public() -> None:
    snippet = next(snippet for snippet in PYTHON if "build_dynamics" in snippet.text)
    assert not re.search(r"\._[a-z]", snippet.text)
    names = run_python(snippet)
    assert names["noise"].shape == names["xh"].shape
    with pytest.raises(NameError):  # negative control: what the README had
        run_python(Snippet("before", "python", "noise = dynamics._forward(t, xh, node_mask, edge_mask, context)"))


@pytest.mark.parametrize("snippet", SHELL, ids=named)
def test_shell(snippet: Snippet, place: Place) -> None:
    place.check(snippet.text, REAL)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    rest = [snippet for snippet in SNIPPETS if snippet not in (*PYTHON, *SHELL)]
    kinds = {only(OUTPUT), only(LAYOUT), *(s for s in rest if s.language == "bibtex" and s.text.startswith(CITATION))}
    assert set(rest) == kinds, "a block in a language that nothing here tests"


def test_what_is_called_for_real_is_called(place: Place) -> None:
    found = {
        beginning
        for beginning in REAL
        for snippet in SHELL
        if beginning.replace("-m symdiff_plugin", "symdiff") in " ".join(snippet.text.split())
    }
    assert found == set(REAL)
    calls = place.check("./run_qm9.sh edm --n_epochs 3\nsymdiff report outputs/*", REAL)
    assert any("main_qm9.py --model egnn_dynamics" in call and "--n_epochs 3" in call for call in calls)
    assert any("symdiff_plugin.evaluate outputs/edm" in call for call in calls)
    assert calls[-1].startswith("*python -m symdiff_plugin report outputs/NAME outputs/bf16 outputs/edm ")
    assert (place.real / "outputs" / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("frobnicate --now", "frobnicate"),
        ("./run_qm9.sh symdif", "symdif"),
        ("./run_qm9.sh symdiff --n_epoch_s 50", "exit status 2"),
        ("python e3_diffusion_for_molecules/main_qm9.py --model symdiff --hidden_sise 3", "exit status 2"),
        ("python e3_diffusion_for_molecules/main_qm9.py --model symdiff --batch_size 0", "exit status 2"),
        ("python e3_diffusion_for_molecules/main_qm10.py", "main_qm10.py"),
        ("python -m symdiff_plugin.evaluate outputs/symdiff --run 3", "exit status 2"),
        ("python -m symdiff_plugin.evaluete outputs/symdiff", "evaluete"),
        ("symdiff evaluate outputs/symdiff --run 3", "exit status 2"),
        ("symdiff evaluete outputs/symdiff", "exit status 2"),
        ("symdiff data geom own mine.sdf --names mine", "exit status 2"),
        ("symdiff report nowhere", "exit status 2"),
        ("python -m symdiff_plugin.common.paper", "reads no command line"),
        ('pip install -e ".[reports]"', "no such extra"),
        ("pip install -c constraint.txt -e .", "constraint.txt"),
        ("python -m sphinxes docs build/docs", "sphinxes"),
        ("docs/cpu_study/train.sh symdif", "unknown name symdif"),
        ("echo done", "nothing is called"),
        ("python -c 'import no_such_module'", "no_such_module"),
    ],
)  # fmt: skip
def test_a_wrong_snippet_is_seen(text: str, reason: str, place: Place) -> None:
    with pytest.raises(Fault, match=re.escape(reason)):
        place.check(text, REAL)


def test_the_output_shown_is_what_the_evaluation_prints() -> None:
    record = json.loads((STUDY / "symdiff_tiny" / "metrics.json").read_text())
    for key in ("n_runs", "std"):
        record.pop(key)
    costs = {f"cost_{name}{what}": 0.0 for name in LABELS for what in ("", "_standard_error")}
    record["gamma"] = {"kind": "constant", "draws": 0.0, "molecules": 0.0, "loss": 0.0, **costs}

    def labels(lines: list[str]) -> list[str]:
        return [re.split(r"\s{2,}", line.strip())[0] for line in lines]

    first, *lines = only(OUTPUT).text.splitlines()
    assert re.fullmatch(r"outputs/\w+: \w+, \S+, seed \d+, sde-dpm\+\+, 50 calls \(.*\)", first)
    assert labels(lines) == labels(metrics_table(record).splitlines())


def layout_entries(text: str) -> set[str]:
    """Files and folders that the layout names, relative to the repository."""
    found = set()
    for line in text.splitlines():
        names = re.match(r"( *)((?:[\w.]+/[\w./]*|\w+\.py)(?:\s+(?:\w+/|\w+\.py))*)", line)
        if names:
            found |= {("symdiff_plugin/" if names[1] else "") + name for name in names[2].split()}
    return found


def test_the_layout_has_every_module_and_no_other() -> None:
    found = layout_entries(only(LAYOUT).text)
    assert {name for name in found if not (ROOT / name).exists()} == set()
    package = ROOT / "symdiff_plugin"
    there = {path.name for path in package.glob("*.py")} | {f"{path.parent.name}/" for path in package.glob("*/*.py")}
    assert there - {name.removeprefix("symdiff_plugin/") for name in found} == {"__init__.py"}
    assert layout_entries("x/   one\n  a.py  b/   two\n              three a.py") == {
        "x/", "symdiff_plugin/a.py", "symdiff_plugin/b/",
    }  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#\s]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8"))
    missing = [target for target in targets if not (ROOT / name).parent.joinpath(target).exists()]
    assert not missing
    if name == "README.md":
        assert any(target.endswith(".png") for target in targets)


def known_flags() -> set[str]:
    """Every flag of our commands, of EDM's scripts and of ours."""
    parsers: list = []
    modules = ("evaluate", "sample", "report", "benchmark", "benchmark.curves", "data.qm9", "pretrained", "edm")
    edm = [f"e3_diffusion_for_molecules/{path.name}" for path in (ROOT / "e3_diffusion_for_molecules").glob("*.py")
           if path.name.startswith(("main_", "eval_"))]  # fmt: skip
    geom = [["-m", "symdiff_plugin.data.geom", word] for word in ("own", "rdkit", "convert")]
    programs = [*(["-m", f"symdiff_plugin.{name}"] for name in modules), *([name] for name in edm), *geom]
    programs += [["examples/standalone_qm9.py"], ["docs/cpu_study/orientations.py"], ["scripts/mutate.py"]]
    with stopping(parsers):
        for program in programs:
            with contextlib.suppress(Parsed):
                start([*program, "--help"])
    found = {text for path in ROOT.glob("run_*.sh") for text in re.findall(r"--\w+", path.read_text())}
    while parsers:
        for action in parsers.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


def test_every_flag_that_is_mentioned_is_one(edm_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    known = known_flags()
    assert {"--symdiff_compat", "--nll_draws", "--archive", "--skip_bad", "--n_epochs"} <= known
    assert "--no_such_flag" not in known
    mentioned = {
        (flag, place)
        for name, text in TEXTS.items()
        for place, code in codes(name, text)
        for flag in re.findall(r"(?<![\w-])--[A-Za-z]\w*", code)
    }
    assert mentioned
    assert {(flag, place) for flag, place in mentioned if flag not in known} == set()


def test_every_name_and_file_that_is_mentioned_is_there(edm_path: Path) -> None:
    missing = []
    for name, text in TEXTS.items():
        for place, code in codes(name, text):
            if re.fullmatch(r"(tests|docs|examples|scripts|patches)/[\w./-]+", code):
                found = (ROOT / code).exists()
            elif re.fullmatch(r"symdiff_plugin(\.\w+)+", code):
                module, _, attribute = code.rpartition(".")
                found = (ROOT / f"{code.replace('.', '/')}.py").is_file() or (ROOT / code.replace(".", "/")).is_dir()
                found = found or hasattr(importlib.import_module(module), attribute)
            elif re.fullmatch(r"(symdiff|dit)\w*", code):
                found = code in PRESETS or (ROOT / code).exists()
            else:
                continue
            if not found:
                missing.append(f"{place} {code}")
    assert not missing


def test_the_studys_report_is_what_its_runs_make(edm_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    runs, skipped = read_runs(sorted(STUDY.iterdir()))
    assert not skipped
    record = json.loads((ROOT / "docs" / "cpu_study" / "report.json").read_text())
    assert record["tables"] == json.loads(json.dumps([table.record() for table in build_tables(runs)]))
