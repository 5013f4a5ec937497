"""CITATION.cff, pyproject.toml and README name the same works, authors and version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import symdiff_plugin

ROOT = Path(__file__).resolve().parent.parent
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_plugin_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()  # what the format requires
    assert CITATION["version"] == project["version"] == symdiff_plugin.__version__
    assert CITATION["license"] == project["license"]
    assert CITATION["authors"] == project["authors"]
    assert CITATION["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    urls = {reference.get("url") or reference["repository-code"] for reference in CITATION["references"]}
    assert set(project["urls"].values()) == urls


def test_the_references_are_the_readmes() -> None:
    entries = re.findall(r"(?ms)^@\w+\{.*?^\}", README)
    assert len(entries) == len(CITATION["references"]) == 2
    for entry, reference in zip(entries, CITATION["references"], strict=True):
        fields = dict(re.findall(r"(?m)^ +(\w+) += \{(.*)\},?$", entry))
        people = [f"{person['family-names']}, {person['given-names']}" for person in reference["authors"]]
        assert fields["author"].replace(r"{\'e}", "é").split(" and ") == people
        assert fields["title"] == reference["title"]
        assert int(fields["year"]) == reference["year"]
