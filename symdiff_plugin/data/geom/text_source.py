"""Text files read line by line, gzipped or not, whose progress is counted in bytes of the file on disk."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from symdiff_plugin.data.schema import DataError

SDF, XYZ = ("sdf", "sd", "mol"), ("xyz",)
LONGEST_LINE = 1 << 20  # characters; a file of one endless line is not text


def kind_of(path: Path) -> str:
    """The ending of a file that tells what it holds, ``sdf`` of ``mine.SDF.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return name.rpartition(".")[2] if "." in name else ""


def find_text_files(paths: Iterable[str | Path]) -> list[Path]:
    """The SDF and XYZ files among ``paths``, and in those that are folders, however deep, in the order of their names.

    Raises:
        DataError: a path is missing, is neither SDF nor XYZ, is given twice, or is a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(_inside(path))
            if not inside:
                raise DataError(f"{path} holds no .sdf, .mol or .xyz file, gzipped or not")
            found += inside
        elif not path.is_file():
            raise DataError(f"{path} is not there")
        elif kind_of(path) not in (*SDF, *XYZ):
            raise DataError(f"{path} is neither SDF nor XYZ by its name: call it .sdf, .mol or .xyz, or .gz after that")
        else:
            found.append(path)
    seen: set[Path] = set()
    for path in found:
        if path.resolve() in seen:
            raise DataError(f"{path} is given twice")
        seen.add(path.resolve())
    return found


def _inside(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (p for p in (Path(root, n) for n in names if n[0] != ".") if kind_of(p) in (*SDF, *XYZ))


class TextSource:
    """The lines of a file, without their ends; holds one at a time.

    Args:
        path: the file; gzipped if its name ends in ``.gz``.
        advance: told how many more bytes of the file on disk have been read.

    Attributes:
        line: number of the last line read, from 1.
    """

    def __init__(self, path: Path, advance: Callable[[float], None] = lambda more: None) -> None:
        self.path, self.line = path, 0
        self._advance, self._told = advance, 0

    def __iter__(self) -> Iterator[str]:
        """The lines of the file.

        Raises:
            DataError: it cannot be read, is a damaged gzip file, or holds no text.
        """
        try:
            with open(self.path, "rb") as raw:
                packed = self.path.name.lower().endswith(".gz")
                content = gzip.GzipFile(fileobj=raw) if packed else raw
                with io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace") as text:  # Latin-1 titles
                    while line := text.readline(LONGEST_LINE):
                        self.line += 1
                        if len(line) == LONGEST_LINE or "\0" in line:
                            raise DataError(f"{self.path}, line {self.line}: this is not text, so neither SDF nor XYZ")
                        if self.line % 1000 == 0:
                            self._tell(raw.tell())
                        yield line.rstrip("\r\n")
                    self._tell(raw.tell())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.path}: the gzip file is damaged after line {self.line} ({error}): get it again"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {self.path} ({error.strerror or error})") from error

    def _tell(self, position: int) -> None:
        self._advance(position - self._told)
        self._told = position
