"""The shell scripts up to where they would install packages: help, refusals, exit status, one line each."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from symdiff_plugin.presets import EGNN_BASELINES, PRESETS

ROOT = Path(__file__).parent.parent
SCRIPTS = ["run_qm9.sh", "run_geom.sh", "run_tests.sh", "scripts/setup.sh", ".ci/run"]


@pytest.fixture
def repository(tmp_path):
    """Our files as a download leaves them: no git, no EDM, no virtual environment."""
    root = tmp_path / "repository"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy of the repository is no git work tree, so its files cannot be told from others")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    return root


def run(script, *arguments, cwd, **environment):
    """Runs a script with this Python and a GitHub that refuses connections, whatever network there is."""
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "EDM_"))},
        "PYTHON": sys.executable,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "url.https://127.0.0.1:9/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        **environment,
    }
    command = ["bash", str(cwd / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=120)


def assert_refused(result, status, *words):
    """One line of complaint with all the words."""
    assert result.returncode == status, result.stderr
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("getting EDM from ")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse_and_can_be_run(script):
    assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0
    assert script == "scripts/setup.sh" or os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize("script", ["run_qm9.sh", "run_geom.sh", "run_tests.sh"])
def test_help_needs_no_set_up(script, repository):
    before = files(repository)
    result = run(script, "--help", cwd=repository, PYTHON="/no such python")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: ")
    assert files(repository) == before


def test_help_names_every_preset(repository):
    said = run("run_qm9.sh", "--help", cwd=repository).stdout.replace(",", " ").replace(";", " ").split()
    assert set(PRESETS) | set(EGNN_BASELINES) <= set(said)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["symdif"], 2, ["symdif", "symdiff_star", "edm_plus"]),
        (["symdiff", "--model", "dit"], 2, ["--model"]),
        (["--model=dit"], 2, ["--model"]),
        (["--smoke", "dit"], 2, ["--smoke", "dit"]),
        (["dit", "--smoke"], 2, ["--smoke comes first"]),
        (["--exp_name"], 2, ["--exp_name needs a value"]),
        (["--exp_name", "../up"], 2, ["--exp_name"]),
        (["--n_samples", "many"], 2, ["--n_samples"]),
        (["--datad", "x"], 2, ["--datad", "in full"]),
        ([], 1, ["cannot get EDM", "EDM_REPO"]),
        (["edm"], 1, ["cannot get EDM", "EDM_REPO"]),
    ],
)
def test_run_qm9_refuses_in_one_line_and_leaves_nothing(arguments, status, words, repository):
    before = files(repository)
    result = run("run_qm9.sh", *arguments, cwd=repository)
    assert_refused(result, status, *words)
    assert files(repository) == before


def test_a_wrong_mirror_is_refused(repository):
    result = run("run_qm9.sh", cwd=repository, EDM_REPO=str(repository / "nowhere"))
    assert_refused(result, 2, "EDM_REPO", "nowhere", "any clone or mirror")


def test_an_old_python_is_refused(repository):
    assert_refused(run("run_qm9.sh", cwd=repository, PYTHON="/no such python"), 2, "PYTHON=/no such python", "3.10")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, ["geom_drugs_30.npy", "--archive", "--help"]),
        (["edm"], 2, ["geom_drugs_30.npy", "--archive"]),
        (["--archive", "nowhere.msgpack"], 2, ["nowhere.msgpack", "download"]),
        (["--data_file", "nowhere.npy"], 2, ["nowhere.npy"]),
        (["--archive", "a", "--data_file", "b"], 2, ["--archive", "or --data_file"]),
        (["edm_plus"], 2, ["edm_plus", "GEOM-Drugs", "edm_tiny"]),
        (["--split", "random"], 2, ["--split", "official or molecule", "random"]),
        (["--split"], 2, ["--split needs a value"]),
        (["--arch", "x"], 2, ["--arch", "in full"]),
        (["--smoke", "edm"], 2, ["--smoke", "edm"]),
        (["edm", "--smoke"], 2, ["--smoke comes first"]),
        (["--smoke", "--archive", "x"], 2, ["--smoke", "--archive"]),
        (["--smoke"], 1, ["cannot get EDM", "EDM_REPO"]),
    ],
)
def test_run_geom_refuses_in_one_line_and_leaves_nothing(arguments, status, words, repository):
    before = files(repository)
    result = run("run_geom.sh", *arguments, cwd=repository)
    assert_refused(result, status, *words)
    assert files(repository) == before


def test_paths_of_data_are_meant_where_the_user_is(repository):
    (repository.parent / "mine.npy").touch()
    place = repository.parent
    result = run("repository/run_geom.sh", "--data_file", "mine.npy", "--split", "molecule", cwd=place)
    assert_refused(result, 1, "cannot get EDM")  # the file was found, so the next step is tried


def test_own_data_have_no_official_split(repository):
    for name in ("mine.npy", "mine_info.json"):
        (repository.parent / name).touch()
    result = run("repository/run_geom.sh", "--data_file", "mine.npy", cwd=repository.parent)
    assert_refused(result, 2, "mine.npy", "--split molecule")


def test_a_folder_that_is_no_virtual_environment_is_left_alone(repository):
    (repository / ".venv").mkdir()
    (repository / ".venv" / "mine").write_text("precious")
    result = run("run_tests.sh", cwd=repository)
    assert result.returncode == 2
    assert "no virtual environment" in result.stderr.splitlines()[-1]
    assert "EDM CANNOT BE HAD" in result.stderr
    assert files(repository / ".venv") == ["mine"]
