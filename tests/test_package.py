"""What importing the package needs: no EDM, and no torch for what runs before installation."""

import pkgutil
import subprocess
import sys

import pytest

import symdiff_plugin

EDM_OWNS = {"utils", "configs", "qm9", "egnn", "equivariant_diffusion", "train_test"}


def run(code: str) -> str:
    """Runs ``code`` in a fresh interpreter, far from any checkout."""
    out = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_every_module_imports_without_edm():
    names = [
        module.name
        for module in pkgutil.walk_packages(symdiff_plugin.__path__, "symdiff_plugin.")
        if not module.name.endswith("__main__")
    ]
    assert len(names) > 15
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(*sorted(name for name in sys.modules if '.' not in name))"
    )
    assert EDM_OWNS.isdisjoint(run(code).split())


@pytest.mark.parametrize("module", ["symdiff_plugin", "symdiff_plugin.edm", "symdiff_plugin.presets"])
def test_set_up_needs_the_standard_library_alone(module):
    third_party = {"torch", "numpy", "scipy", "rdkit", "matplotlib", "tqdm"}
    loaded = run(f"import sys, {module}; print(*sorted(name for name in sys.modules if '.' not in name))").split()
    assert third_party.isdisjoint(loaded)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Symdiff'"):
        _ = symdiff_plugin.Symdiff


def test_public_names_resolve():
    for name in symdiff_plugin.__all__:
        assert getattr(symdiff_plugin, name) is not None
