"""The shell scripts up to where they would install packages: help, refusals, exit status, one line each."""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from symdiff_plugin.presets import EGNN_BASELINES, PRESETS

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    "run_qm9.sh",
    "run_geom.sh",
    "run_tests.sh",
    "scripts/setup.sh",
    "scripts/check_pythons.sh",
    "scripts/test_versions.sh",
    ".ci/run",
]


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


@pytest.mark.parametrize("version", ["(3, 10, 13)", "(3, 15, 0)", None])
def test_a_python_that_is_not_ours_is_refused(version, repository, tmp_path):
    """The floor is NumPy's, the ceiling PyTorch's: both are in pyproject.toml alone."""
    python = tmp_path / "python"
    if version:
        python.write_text(f"""#!/bin/sh
code=$2; shift 2
exec {sys.executable} -c "import sys; sys.version_info = {version}; $code" "$@"
""")
        python.chmod(0o755)
    assert_refused(run("run_qm9.sh", cwd=repository, PYTHON=str(python)), 2, f"PYTHON={python}", "Python 3.11 to 3.14")


def test_every_place_names_the_same_pythons():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    first, beyond = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["project"]["requires-python"]).groups())
    assert project["tool"]["ruff"]["target-version"] == f"py3{first}"
    for script in ("run_qm9.sh", "run_geom.sh"):
        assert f"the Python, 3.{first} to 3.{beyond - 1}," in (ROOT / script).read_text()
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pins)  # one for every Python, hence no markers
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *(x for e in extras.keys() - {"wandb"} for x in extras[e])]
    assert {re.match(r"[\w-]+", line)[0] for line in wanted} == {pin.split("==")[0] for pin in pins}


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


PIP = """import pathlib, sys
place = pathlib.Path(__file__).parent.parent
if sys.argv[1] == "install":
    with open(place / "installed", "a") as file:
        print(sys.argv[-1], file=file)
    (place / "constraints").write_text(pathlib.Path(sys.argv[sys.argv.index("-c") + 1]).read_text())
    (place / "symdiff.pth").write_text(str(pathlib.Path.cwd()))
"""


class Environment:
    """A virtual environment whose pip notes what it is to install, and does as an editable installation does."""

    def __init__(self, root, pip=True):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
        self.root = root
        (self.packages,) = root.glob("lib/python3*/site-packages")
        if pip:
            (self.packages / "pip").mkdir()
            (self.packages / "pip/__main__.py").write_text(PIP)

    def belongs_to(self, clone):
        (self.packages / "symdiff.pth").write_text(str(clone))

    @property
    def owner(self):
        return (self.packages / "symdiff.pth").read_text()

    @property
    def installed(self):
        path = self.packages / "installed"
        return path.read_text().split() if path.exists() else []


def call(words, cwd, **environment):
    """Runs functions of scripts/setup.sh."""
    (cwd / "call.sh").write_text(f"set -euo pipefail; . scripts/setup.sh; find_python; {words}")
    return run("call.sh", cwd=cwd, **environment)


def test_one_stamp_says_what_an_environment_has(repository):
    environment = Environment(repository / ".venv")
    for words, calls in (
        ("install data", [".[data]"]),
        ("install data", []),
        ("install report test", [".[data,report,test]"]),
        ("install data; install test report", []),
        ("echo >>constraints.txt; install data", [".[data,report,test]"]),
    ):
        before = len(environment.installed)
        assert call(words, repository).returncode == 0
        assert environment.installed[before:] == calls
    assert [path.name for path in environment.root.glob(".symdiff*")] == [".symdiff"]
    assert not (repository / ".venv.installing").exists()


@pytest.mark.parametrize("versions", ["lowest", "newest"])
def test_the_versions_that_are_tested_are_those_of_pyproject(versions, repository):
    environment = Environment(repository / f".venv-{versions}")
    run("scripts/test_versions.sh", versions, cwd=repository)
    assert environment.installed == [".[data,docs,posebusters,test]"]
    pins = {line for line in (environment.packages / "constraints").read_text().splitlines() if line[0] != "#"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    assert pins == ({"==".join(line.split(">=")) for line in wanted} if versions == "lowest" else set())


def test_versions_are_the_lowest_or_the_newest(repository):
    assert_refused(run("scripts/test_versions.sh", "--lowest", cwd=repository), 2, "usage", "lowest|newest")


def test_the_environment_of_another_clone_is_refused(repository, tmp_path):
    other = shutil.copytree(repository, tmp_path / "other")
    environment = Environment(tmp_path / "venv")
    environment.belongs_to(other)
    before = files(environment.root)
    refused = call("install data", repository, SYMDIFF_VENV=str(environment.root))
    assert_refused(refused, 2, str(environment.root), f"of {other}", "SYMDIFF_VENV to another place", "pip uninstall")
    assert environment.owner == str(other)
    assert files(environment.root) == before
    shutil.rmtree(other)  # nobody's any more
    assert call("install data", repository, SYMDIFF_VENV=str(environment.root)).returncode == 0
    assert environment.owner == str(repository)


def test_a_copied_clone_takes_its_own_environment(repository, tmp_path):
    other = shutil.copytree(repository, tmp_path / "other")
    environment = Environment(repository / ".venv")
    environment.belongs_to(other)
    assert call("install data", repository).returncode == 0
    assert environment.owner == str(repository)


def test_an_environment_without_pip_is_left_alone(repository):
    environment = Environment(repository / ".venv", pip=False)
    environment.belongs_to("mine")
    refused = call("install data", repository)
    assert_refused(refused, 2, ".venv", "with pip", "SYMDIFF_VENV")
    assert environment.owner == "mine"
    assert not (repository / ".venv.installing").exists()


@pytest.mark.parametrize("alive", [True, False])
def test_installations_take_turns(alive, repository):
    environment = Environment(repository / ".venv")
    pid = os.getpid() if alive else 2**22 + 1  # no process has a number above 2^22
    (repository / ".venv.installing").write_text(f"{pid} {platform.node()}\n")
    done = call("install data", repository)
    if alive:
        assert_refused(done, 1, f"process {pid} is installing into .venv", "wait", ".venv.installing")
        assert environment.installed == []
    else:
        assert done.returncode == 0
        assert environment.installed == [".[data]"]


# A trainer that says when it is there, and ends like ours when it is told to.
TRAINER = """#!/usr/bin/env bash
for s in TERM HUP USR1; do trap "sleep 0.5; echo $s >>heard; exit $((128 + $(kill -l $s)))" $s; done
trap '' INT
mkdir -p outputs/mine; touch outputs/mine/config.json there
for i in $(seq 100); do sleep 0.1; done
"""


@pytest.mark.parametrize(
    ("sent", "heard", "status"),
    [("SIGTERM", "TERM", 143), ("SIGINT", "TERM", 130), ("SIGHUP", "HUP", 129), ("SIGUSR1", "USR1", 138)],
)
def test_a_signal_reaches_the_training_and_no_orphan_stays(sent, heard, status, repository):
    trainer = repository / ".venv/bin/python"
    trainer.parent.mkdir(parents=True)
    trainer.write_text(TRAINER)
    trainer.chmod(0o755)
    words = "NAME=mine; RESUME=auto; train main_qm9.py --lr 1; echo went on"
    (repository / "call.sh").write_text(f"set -euo pipefail; . scripts/setup.sh; {words}")
    script = subprocess.Popen(
        ["bash", "call.sh"], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (repository / "there").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    script.send_signal(getattr(signal, sent))
    assert script.wait(timeout=60) == status
    assert (repository / "heard").read_text().split() == [heard]  # the script has waited for it
    said, errors = script.communicate(timeout=60)
    assert errors.splitlines() == [
        f"call.sh: {'interrupted' if status == 130 else 'terminated'}; the same command goes on where it stopped"
    ]
    assert said.splitlines() == ["== training: outputs/mine"]
    assert not (repository / "outputs/mine/training_done").exists()


def test_a_finished_run_is_of_its_data(repository):
    run_folder = repository / "outputs/mine"
    run_folder.mkdir(parents=True)
    for name in ("command", "training_done", "config.json"):
        (run_folder / name).write_text("main_geom_drugs.py\n--data_file\na.npy\n")
    train = "NAME=mine; RESUME=auto; DATA_FLAGS=(--data_file %s); train main_geom_drugs.py"
    assert "trained already" in call(train % "a.npy", repository).stdout
    assert_refused(call(train % "b.npy", repository), 2, "outputs/mine", "other flags", "--exp_name")


def test_every_path_is_meant_where_the_user_is(repository, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "call.sh").write_text(
        "set -euo pipefail; . ../repository/scripts/setup.sh; NAME=x; N_SAMPLES=1\n"
        "parse_flags --datadir d --resume r --init_from i --init_from outputs/i\n"
        'printf "%s\\n" "$PWD" "$VENV" "$EDM_REPO" "$DATADIR" "$RESUME" "${FLAGS[@]}"'
    )
    said = run("call.sh", cwd=place, SYMDIFF_VENV="venv/", EDM_REPO="../edm").stdout.split()
    wanted = [f"{place}/{name}" for name in ("venv", "../edm", "d", "r")]
    assert said == [str(repository), *wanted, f"--init_from={place}/i", "--init_from=outputs/i"]
