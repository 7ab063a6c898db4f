"""Makes the job environment: the interpreter with torch that jobs run in by default.

Standard library only, so that it starts before anything is installed:

    python -m workers.node.job_environment [--path .venv-job] [--accelerator auto|cpu|cuda]

It knows nothing about jobs, and nothing about the service's own environment.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_PATH = CHECKOUT / ".venv-job"
ACCELERATORS = ("auto", "cpu", "cuda")

TORCH_VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# hatchling builds the SDK: installed here, it need not be fetched into a build environment.
PACKAGES = ("hatchling==1.33.0", "numpy==2.4.6", "safetensors==0.8.0", "scikit-learn==1.9.1")

STAMP = ".ready"
STILL_AT_IT_S = 15.0
PYTHON_MIN = (3, 11)

# Sources of trouble that pip reports in its own words, and the way out of each.
_REMEDIES = (
    ("ensurepip", "this Python cannot make virtual environments: apt install python3-venv"),
    ("No space left", "the disk is full: the CPU build needs 2 GB, the CUDA build 12 GB"),
    ("Failed to establish a new connection", "no network: check the connection or the proxy"),
    ("Read timed out", "the network is too slow or blocked: check the connection or the proxy"),
    (
        "No matching distribution",
        "no such build for this Python and machine: try PYTHON=python3.11",
    ),
)


class EnvironmentFailed(Exception):
    """The environment could not be made. The message says at which step, why, and what to do."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is installed; two equal recipes give the same environment."""

    accelerator: str
    torch: str
    torch_index: str | None
    packages: tuple[str, ...]
    sdk: str

    def fingerprint(self) -> str:
        """Return a hash that changes when anything here does."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def plan_recipe(accelerator: str, *, platform: str, sdk: Path) -> Recipe:
    """Return what to install for `accelerator`, "cpu" or "cuda", on `platform` (sys.platform)."""
    if platform != "linux":
        # Elsewhere there is one build, without CUDA, under the plain version.
        torch, index = f"torch==={TORCH_VERSION}", None
    elif accelerator == "cpu":
        # The exact local version: a CUDA build, gigabytes larger, can never be taken by accident.
        torch, index = f"torch=={TORCH_VERSION}+cpu", CPU_INDEX
    else:
        # With two equal signs a local +cpu wheel would match, and win.
        torch, index = f"torch==={TORCH_VERSION}", None
    return Recipe(
        accelerator=accelerator,
        torch=torch,
        torch_index=index,
        packages=PACKAGES,
        sdk=f"{sdk}:{hashlib.sha256((sdk / 'pyproject.toml').read_bytes()).hexdigest()}",
    )


def find_accelerator(wish: str) -> str:
    """Return "cpu" or "cuda"; "auto" is the CPU build unless this machine shows an NVIDIA GPU."""
    if wish not in ACCELERATORS:
        raise EnvironmentFailed(f"accelerator is {wish!r}: use one of {', '.join(ACCELERATORS)}")
    if wish != "auto":
        return wish
    return "cuda" if Path("/dev/nvidia0").exists() or _nvidia_smi_lists_a_gpu() else "cpu"


def is_ready(path: Path, recipe: Recipe) -> bool:
    """Return whether `path` holds the finished environment of this recipe, at this place."""
    try:
        stamp = json.loads((path / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # Scripts in an environment name its own path, so one that was moved is made again.
    return bool(
        stamp == _stamp(path, recipe) and (path / "bin" / "python").exists()  # its base may be gone
    )


def ensure_environment(
    path: Path, recipe: Recipe, *, sdk: Path, say: Callable[[str], None] = print
) -> bool:
    """Make the environment unless it is there already; return whether it had to be made.

    The stamp is written last: what was interrupted has none and is made again from nothing.
    Two processes that come at once do the work once.

    Raises:
        EnvironmentFailed: a step failed; its full output is in `<path>.log`.
    """
    if is_ready(path, recipe):
        return False
    if sys.version_info < PYTHON_MIN:
        raise EnvironmentFailed(f"Python {sys.version.split()[0]} is too old: use 3.11 or newer")
    with _exclusively(path, say):
        if is_ready(path, recipe):
            return False
        size = "1 GB" if recipe.accelerator == "cpu" else "8 GB"
        say(f"job environment: making {path} ({recipe.torch}, about {size} on disk), once")
        for title, command in _plan_steps(path, recipe, sdk):
            _run_step(title, command, log=_beside(path, ".log"), say=say)
        stamp = path / (STAMP + ".new")
        stamp.write_text(json.dumps(_stamp(path, recipe), indent=1), encoding="utf-8")
        stamp.replace(path / STAMP)
    _beside(path, ".log").unlink(missing_ok=True)
    return True


def _stamp(path: Path, recipe: Recipe) -> dict[str, str]:
    return {"recipe": recipe.fingerprint(), "path": str(path), "torch": recipe.torch}


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _plan_steps(path: Path, recipe: Recipe, sdk: Path) -> list[tuple[str, list[str]]]:
    install = [str(path / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input"]
    # Few retries: a mirror may serve everything although one of the indexes cannot be reached.
    install += ["--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    index = ["--extra-index-url", recipe.torch_index] if recipe.torch_index else []
    return [
        ("virtual environment", _plan_venv(path)),
        # torch alone may come from its own index; its dependencies come from the usual one.
        (recipe.torch, [*install, *index, "--no-deps", recipe.torch]),
        (" ".join(recipe.packages), [*install, recipe.torch, *recipe.packages]),
        (
            "trainmaster (this checkout)",
            [*install, "--no-deps", "--no-build-isolation", "--editable", str(sdk)],
        ),
    ]


def _plan_venv(path: Path) -> list[str]:
    uv = shutil.which("uv")
    try:
        import ensurepip  # noqa: F401, PLC0415  Debian ships it apart: python3-venv
    except ImportError:
        if uv is not None:
            return [uv, "venv", "--clear", "--seed", "--python", sys.executable, str(path)]
    return [sys.executable, "-m", "venv", "--clear", str(path)]


def _run_step(title: str, command: Sequence[str], *, log: Path, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    say(f"  {title} ...")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        ) as process,
    ):
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STILL_AT_IT_S)
                break
            say(f"  {title}: still at it after {time.monotonic() - started:.0f} s")
    if process.returncode != 0:
        raise EnvironmentFailed(_describe_failure(title, log))
    say(f"  {title}: {time.monotonic() - started:.1f} s")


def _describe_failure(title: str, log: Path) -> str:
    output = log.read_text(encoding="utf-8", errors="replace")
    remedies = [remedy for sign, remedy in _REMEDIES if sign in output]
    tail = "\n".join(f"    {line}" for line in output.splitlines()[-8:])
    what_to_do = remedies[0] if remedies else "see the output; then run the same command again"
    return f"{title} failed: {what_to_do}\n{tail}\n  the whole output is in {log}"


@contextlib.contextmanager
def _exclusively(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path, ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"job environment: waiting for the process that is making {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _nvidia_smi_lists_a_gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and listed.stdout.startswith(b"GPU ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environment; exit code 1 and a reason on standard error when it cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.node.job_environment",
        description="Make the environment that jobs run in by default.",
    )
    parser.add_argument("--path", type=Path, default=DEFAULT_PATH, help="where (%(default)s)")
    parser.add_argument(
        "--accelerator",
        choices=ACCELERATORS,
        default=os.environ.get("TRAINMASTER_ACCELERATOR", "auto"),
        help="which build of torch; default TRAINMASTER_ACCELERATOR, else auto: the CPU build "
        "unless an NVIDIA GPU is seen",
    )
    options = parser.parse_args(arguments)
    sdk = CHECKOUT / "sdk"
    try:
        accelerator = find_accelerator(options.accelerator)
        recipe = plan_recipe(accelerator, platform=sys.platform, sdk=sdk)
        ensure_environment(options.path.absolute(), recipe, sdk=sdk, say=_say)
    except EnvironmentFailed as failure:
        sys.stderr.write(f"job environment: {failure}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("job environment: interrupted; the next run begins again\n")
        return 130
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
