"""Running git: quiet, without prompts, untouched by the caller's settings; its failures in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from symdiff_plugin.edm import EdmError

_PROBE_SECONDS = 40
# A transfer slower than this many bytes a second for this many seconds has stalled.
_STALLED = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30")
# What must not lean on the user's settings: the bytes of the files and the strictness of `git apply`.
_OWN = ("-c", "core.autocrlf=false", "-c", "apply.ignoreWhitespace=no", "-c", "apply.whitespace=nowarn",
        "-c", "advice.detachedHead=false", "-c", "core.quotePath=false")  # fmt: skip


class GitError(EdmError):
    """git ended with an error; ``reason`` is what it said, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"git: {reason}", exit_status=1)
        self.reason = " ".join(reason.split())


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    # A caller's GIT_DIR and the like (we may run inside a hook) would point git at another repository.
    local = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
             "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_NAMESPACE")  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in local}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if "GIT_SSH" not in environment:
        environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15")
    return environment | dict(extra or {})


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.replace("\r", "\n").splitlines() if line.strip()]
    if any("No space left on device" in line or "Disk quota exceeded" in line for line in lines):
        return "no space left on the disk"
    for line in lines:
        head, _, rest = line.partition(": ")
        if head in ("fatal", "error", "ssh") and rest:
            return rest
    return lines[-1] if lines else "it failed without a word"


def git(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    progress: bool = False,
) -> bytes:
    """What ``git *arguments`` prints, run in ``cwd``.

    Args:
        env: variables beside the environment's.
        timeout: seconds after which it is given up.
        progress: show git's own progress on a terminal.

    Raises:
        GitError: git failed or took too long.
        EdmError: there is no git.
    """
    if shutil.which("git") is None:
        raise EdmError("git is not installed, and EDM comes as a git submodule: install git first", exit_status=1)
    progress = progress and sys.stderr.isatty()
    subcommand, *rest = map(str, arguments)
    command = ["git", *_STALLED, *_OWN, subcommand, *(["--progress"] if progress else []), *rest]
    if progress:
        # git rewrites its progress line with \r: shown as it comes, and kept for the reason of a failure.
        with subprocess.Popen(
            command, cwd=cwd, env=_environment(env), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            stderr = b""
            while chunk := os.read(process.stderr.fileno(), 4096):
                os.write(sys.stderr.fileno(), chunk)
                stderr = (stderr + chunk)[-20000:]
        stdout, code = b"", process.returncode
    else:
        try:
            done = subprocess.run(
                command, cwd=cwd, env=_environment(env), stdin=subprocess.DEVNULL,
                capture_output=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise GitError(f"no answer within {timeout:g} seconds") from None
        stdout, stderr, code = done.stdout, done.stderr, done.returncode
    if code:
        raise GitError(_reason(stderr.decode(errors="replace")))
    return stdout


def line(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str | None:
    """The first line that ``git *arguments`` prints, or None where git fails."""
    try:
        text = git(*arguments, cwd=cwd, env=env).decode()
    except GitError:
        return None
    return text.splitlines()[0] if text else ""


def probe(url: str, cwd: Path) -> None:
    """Ask the repository at ``url`` for its branches, to fail within seconds where nobody answers.

    Raises:
        GitError: it is unreachable or no git repository.
    """
    git("ls-remote", "--heads", "--", url, cwd=cwd, timeout=_PROBE_SECONDS)
