"""Mutation testing of the core: ``python scripts/mutate.py [MODULE ...]``, as in ``model/dynamics evaluate/metrics``.

Each mutant is a module with one small fault (``mutants.py`` has the kinds). Tests that still pass have not seen it, and
it *survives*. The tests that ``TESTS`` names for the module run once as they are; every mutant is a fork of that
process, in which those that run through its lines run again, the fastest first, up to the first failure. Results are
kept under ``.mutation``, so that an interrupted run goes on where it was; survivors are tried again each time.

Mutants that no test can kill, because they compute the same thing, are listed with a reason in
``mutate_equivalent.json`` beside this file. The exit status is 1 if any other survives or a listed one is no more.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("mutate_equivalent.json")
PACKAGE = "symdiff_plugin"
# What the tests of the core import and nothing mutates; in the parent once, not in every fork.
LIBRARIES = (
    "torch", "numpy", "scipy.stats", "scipy.sparse.csgraph", "scipy.spatial.distance", "rdkit.Chem",
    "rdkit.Chem.rdDetermineBonds", "safetensors.torch", "tqdm", "pytest", "_pytest.assertion.rewrite",
    "torch._dynamo", "torch.utils.flop_counter", "torch.distributions",
)  # fmt: skip

# The modules in the order of their weight, and the tests that are to find their faults.
_FAST = ["-k", "not moments and not compiled and not learns"]
_MODEL = [
    "tests/model/test_dynamics.py",
    "tests/model/test_dynamics_speed.py",
    "tests/model/test_symmetrisation.py",
    "tests/test_compat.py",
]
TESTS: dict[str, list[str]] = {
    "model/dynamics": [*_MODEL, "tests/model/test_dynamics_groups.py", "tests/model/test_backbone.py", *_FAST],
    "model/symmetrisation": [*_MODEL, "tests/model/test_symmetrised.py", *_FAST],
    "model/groups": ["tests/model/test_groups.py", "tests/model/test_symmetrised.py"],
    "model/pair_features": ["tests/model/test_pair_features.py"],
    "packed/atoms": [
        "tests/packed/test_atoms.py",
        "tests/packed/test_attention.py",
        "tests/model/test_pair_features.py",
    ],
    "model/dit": ["tests/model/test_dit.py"],
    "packed/modulation": ["tests/packed/test_modulation.py"],
    "packed/attention": ["tests/packed/test_attention.py"],
    "packed/swiglu": ["tests/packed/test_swiglu.py"],
    "packed/row_slices": ["tests/packed/test_row_slices.py"],
    "packed/precision": ["tests/packed/test_precision.py", "tests/packed/test_bf16_notice.py", "-k", "not tell"],
    "process/diffusion": ["tests/process/test_diffusion.py", "tests/process/test_diffusion_is_edms.py"],
    "process/schedule": [
        "tests/process/test_schedule.py",
        "tests/process/test_diffusion.py",
        "tests/process/test_diffusion_is_edms.py",
    ],
    "process/step_grids": ["tests/process/test_schedule.py"],
    "process/step_rules": ["tests/process/test_step_rules.py", "tests/process/test_sampler.py"],
    "process/sampler": ["tests/process/test_sampler.py"],
    "process/flow_path": ["tests/process/test_flow_path.py"],
    "process/edm_processes": ["tests/process/test_edm_processes.py"],
    "process/walk": [
        "tests/process/test_walk.py",
        "tests/process/test_step_rules.py",
        "tests/process/test_equivariance_in_law.py",
    ],
    "process/edm_diffusion": ["tests/process/test_edm_diffusion.py"],
    "process/importance_bound": ["tests/process/test_importance_bound.py"],
    "molecules/edm_rules": ["tests/molecules/test_edm_rules.py"],
    "evaluate/metrics": ["tests/evaluate/test_metrics.py", "tests/molecules/test_edm_rules.py"],
    "evaluate/novelty": ["tests/evaluate/test_novelty.py", "tests/molecules/test_edm_rules.py"],
    "molecules/edm_bonds": ["tests/evaluate/test_novelty.py", "tests/molecules/test_edm_rules.py"],
    "molecules/bonds": ["tests/molecules/test_bonds.py"],
    "molecules/perception": ["tests/molecules/test_perception.py"],
    "evaluate/by_size": ["tests/evaluate/test_by_size.py"],
    "evaluate/likelihood": ["tests/evaluate/test_likelihood.py"],
    "sample": ["tests/test_sample.py"],
    "training/ema": ["tests/training/test_ema.py"],
    "training/optim": ["tests/training/test_optim.py"],
}


class _Loader(importlib.machinery.SourceFileLoader):
    """Imports a module with a fault in it."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return self.code

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None


def _unwrapped(value: object) -> object:
    """The function inside a property, a static method or what a decorator made of it."""
    for name in ("fget", "func", "__func__", "__wrapped__"):
        if getattr(value, name, None) is not None:
            return _unwrapped(getattr(value, name))
    return value


def put_in_place(mutant: Mutant, module: ModuleType) -> bool:
    """Give the function that is faulty its faulty code; False where that cannot be done in an imported module."""
    scope: object = module
    code = mutant.code
    for name in mutant.where.split("."):
        inner = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name]
        if len(inner) != 1 or name not in vars(scope):
            return False
        (code,), scope = inner, vars(scope)[name]
        function = _unwrapped(scope)
        if isinstance(function, FunctionType):
            own = function.__code__
            if own.co_name != name or own.co_filename != code.co_filename or own.co_freevars != code.co_freevars:
                return False
            function.__code__ = code
            return True
    return False


class Trial:
    """A plugin of pytest: runs the tests once as they are, then those that reach it for every mutant, in a fork.

    Functions get their faulty code in the fork. Faults outside of functions are seen by who imports the module anew.
    """

    def __init__(self, module: str, path: Path, tests: list[str], say: Callable[[str], None]) -> None:
        self.module, self.path, self.tests, self.say = module, str(path), tests, say
        self.lines: dict[str, set[int]] = {}  # of the module, that each test runs through
        self.seconds: dict[str, float] = {}
        self.failed = False
        self.todo: Callable[[Trial], None] | None = None
        self.session: Any = None

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed

    def pytest_runtestloop(self, session: Any) -> bool:
        self.session = session
        for item in session.items:
            start, seen = time.monotonic(), self.lines.setdefault(item.nodeid, set())

            def trace(frame: FrameType, event: str, _: object, seen: set[int] = seen) -> Any:
                if frame.f_code.co_filename != self.path:
                    return None
                seen.add(frame.f_lineno)
                return trace

            threading.settrace(trace)
            sys.settrace(trace)
            try:
                self._run(item)
            finally:
                sys.settrace(None)
                threading.settrace(None)
            self.seconds[item.nodeid] = time.monotonic() - start
            if self.failed:
                return True
        assert self.todo is not None
        self.todo(self)
        return True

    def _run(self, item: Any) -> None:
        # The session comes next: its fixtures stay, all others are torn down.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=self.session)

    def kills(self, mutant: Mutant) -> bool:
        """Whether a test fails, or takes far too long."""
        reach = set(range(mutant.line, mutant.end + 1))
        items = [item for item in self.session.items if not mutant.runs or self.lines[item.nodeid] & reach]
        items.sort(key=lambda item: self.seconds[item.nodeid])
        if not items:
            return False
        child = os.fork()
        if child == 0:
            self._child(mutant, items)
        deadline = time.monotonic() + 10 * sum(self.seconds[item.nodeid] for item in items) + 15
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status != 0
            time.sleep(0.005)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True

    def _child(self, mutant: Mutant, items: list[Any]) -> None:
        status = 1
        try:
            os.setpgid(0, 0)
            if not (mutant.runs and put_in_place(mutant, sys.modules[self.module])):
                status = self._import_anew(mutant)
                return
            for value in list(vars(sys.modules[self.module]).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
            for item in items:
                self._run(item)
                if self.failed:
                    return
            status = 0
        finally:
            os._exit(status)

    def _import_anew(self, mutant: Mutant) -> int:
        import pytest

        for name, module in list(sys.modules.items()):
            file = str(getattr(module, "__file__", None))
            if file.startswith(str(ROOT)) and "site-packages" not in file:
                del sys.modules[name]
        sys.meta_path.insert(0, _Loader(self.module, self.path, mutant.code))
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *self.tests]))


def _say_nothing() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def try_module(name: str, tests: list[str], folder: Path, equivalent: Collection[str]) -> dict[str, str]:
    """Try every mutant of a module that is not known to be killed or equivalent.

    Args:
        name: of the module, its path in the package without the ending.
        tests: files and options that pytest is given.
        folder: where the result is kept.
        equivalent: keys of mutants that are not tried.

    Returns:
        To each mutant's key ``killed``, ``survived`` or ``equivalent``.

    Raises:
        SystemExit: the tests fail without any fault, or none were found.
    """
    import pytest

    path = ROOT / PACKAGE / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    kept, digest = _kept(folder, name), _digest(name)
    before = json.loads(kept.read_text()) if kept.exists() else {}
    known = before.get("mutants", {}) if before.get("source") == digest else {}
    found: dict[str, str] = {}

    def work(trial: Trial) -> None:
        for mutant in mutants(source, str(path), PACKAGE):
            if mutant.key in equivalent:
                verdict = "equivalent"
            elif known.get(mutant.key) == "killed" or trial.kills(mutant):
                verdict = "killed"
            else:
                verdict = "survived"
                trial.say(f"  survived  {path.relative_to(ROOT)}:{mutant.line}: {mutant.key}")
            found[mutant.key] = verdict
            kept.write_text(json.dumps({"source": digest, "mutants": {**known, **found}}, indent=1))
        kept.write_text(json.dumps({"source": digest, "mutants": found}, indent=1))

    # In a fork: the next module's tests are to be imported anew.
    say = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _say_nothing()
            module = ".".join((PACKAGE, *name.split("/")))
            trial = Trial(module, path, tests, lambda line: print(line, file=say, flush=True))
            trial.todo = work
            code = pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[trial])
            status = 0 if code == 0 and not trial.failed else 1
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"{name}: its tests must be there and pass before anything is mutated: {' '.join(tests)}")
    return json.loads(kept.read_text())["mutants"]


def _kept(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '.')}.json"


def _digest(name: str) -> str:
    return hashlib.sha256((ROOT / PACKAGE / f"{name}.py").read_bytes()).hexdigest()[:16]


def report(names: Collection[str], folder: Path) -> str:
    """The results that are kept, as a table of Markdown; modules that have changed since are said to have."""
    rows = ["| module | mutants | killed | equivalent | survived |", "|---|---|---|---|---|"]
    for name in names:
        record = json.loads(_kept(folder, name).read_text()) if _kept(folder, name).exists() else {"source": None}
        if record["source"] != _digest(name):
            rows.append(f"| `{name}` | {'changed since' if record['source'] else 'not run'} | | | |")
            continue
        counts = Counter(record["mutants"].values())
        numbers = (sum(counts.values()), counts["killed"], counts["equivalent"], counts["survived"])
        rows.append(f"| `{name}` | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of: {', '.join(TESTS)} (all)")
    parser.add_argument("--list", action="store_true", help="print the mutants, try none")
    parser.add_argument("--fresh", action="store_true", help="try those again that were killed before")
    parser.add_argument("--report", action="store_true", help="print the results that are kept, try none")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.modules) - set(TESTS))
    if unknown:
        parser.error(f"no module {unknown[0]!r}; choose of {', '.join(TESTS)}")
    chosen = options.modules or list(TESTS)
    folder = ROOT / ".mutation"
    if options.report:
        print(report(chosen, folder))
        return 0
    if options.list:
        for name in chosen:
            path = ROOT / PACKAGE / f"{name}.py"
            for mutant in mutants(path.read_text(encoding="utf-8"), str(path), PACKAGE):
                print(f"{path.relative_to(ROOT)}:{mutant.line}: {mutant.key}")
        return 0

    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads but one
    for library in LIBRARIES:
        importlib.import_module(library)
    folder.mkdir(exist_ok=True)
    listed: dict[str, dict[str, str]] = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    wrong = 0
    rows = []
    for name in chosen:
        if options.fresh:
            _kept(folder, name).unlink(missing_ok=True)
        print(f"{name}:", flush=True)
        verdicts = try_module(name, TESTS[name], folder, listed.get(name, {}))
        stale = sorted(set(listed.get(name, {})) - set(verdicts))
        for key in stale:
            print(f"  no such mutant any more: {name}: {key}")
        counts = Counter(verdicts.values())
        numbers = (sum(counts.values()), counts["killed"], counts["equivalent"], counts["survived"])
        rows.append(f"{name:28s}" + "".join(f"{number:8d}" for number in numbers))
        wrong += counts["survived"] + len(stale)
    print(f"{'module':28s} mutants  killed  equiv. survived", *rows, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
