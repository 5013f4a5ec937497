"""Running git: quiet, without prompts, untouched by the caller's settings; its failures in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from symdiff_plugin.edm import EdmError

# A transfer slower than 1000 bytes a second for 30 seconds has stalled; the rest is what must not lean on the user's
# settings: the bytes of the files and the strictness of `git apply`.
_SETTINGS = ("http.lowSpeedLimit=1000", "http.lowSpeedTime=30", "core.autocrlf=input", "core.quotePath=false",
             "apply.ignoreWhitespace=no", "apply.whitespace=nowarn", "advice.detachedHead=false")  # fmt: skip

# A caller's settings (we may run inside a hook) that would point git at another repository.
_ANOTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
                       "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_NAMESPACE")  # fmt: skip


class GitError(EdmError):
    """git ended with an error; the message is what it said."""


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.replace("\r", "\n").splitlines() if line.strip()]
    no_space = [line for line in lines if "No space left" in line or "quota exceeded" in line]
    said = [line.partition(": ")[2] for line in lines if line.startswith(("fatal: ", "error: ", "ssh: "))]
    return [*no_space, *said, *lines[-1:], "git failed without a word"][0]


def git(*arguments: str | Path, cwd: Path, data: bytes = b"", timeout: float | None = None) -> bytes:
    """What ``git *arguments`` prints, run in ``cwd``.

    Args:
        data: its standard input.
        timeout: seconds after which it is given up.

    Raises:
        GitError: git failed or took too long.
        EdmError: there is no git.
    """
    if shutil.which("git") is None:
        raise EdmError("git is not installed, and EDM comes as a git repository: install git first", exit_status=1)
    environment = {name: value for name, value in os.environ.items() if name not in _ANOTHER_REPOSITORY}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if "GIT_SSH" not in environment:
        environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15")
    command = ["git", *(word for setting in _SETTINGS for word in ("-c", setting)), *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, input=data, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise GitError(f"no answer within {timeout:g} seconds", exit_status=1) from None
    if done.returncode:
        raise GitError(_reason(done.stderr.decode(errors="replace")), exit_status=1)
    return done.stdout


def line(*arguments: str | Path, cwd: Path) -> str | None:
    """The first line that ``git *arguments`` prints, or None where git fails."""
    try:
        return (git(*arguments, cwd=cwd).decode().splitlines() or [""])[0]
    except GitError:
        return None
