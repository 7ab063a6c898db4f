"""Which interpreter runs a job's ranks: the node's default one, or a virtual environment.

An environment is built once per node and kept under a hash of everything that goes into it. Its
own packages come first, the default environment's (torch and friends) after them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.supervisor.cgroup import Cgroup
from workers.supervisor.exits import clean_text
from workers.supervisor.failures import CannotStart
from workers.supervisor.link import GivenUp

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READY = "trainmaster-ready"
_LOOK_S = 0.1
_ASK_LIMIT_S = 30.0


@dataclass
class Interpreters:
    """The interpreters of a node, as one attempt may use them."""

    default: Path
    environments: Path
    log: Path
    run_file: Path
    cgroup: Cgroup | None
    pause: Callable[[float], bool]

    def find(self, python: str | None, requirements: Sequence[str]) -> Path:
        """Return the interpreter for this environment, building it if need be.

        The build's output goes to `log`.

        Raises:
            CannotStart: there is none, or it cannot be built.
            GivenUp: `pause` said so.
        """
        if not self.default.exists():
            raise CannotStart("NodeFailure", f"{self.default} does not exist on this node")
        if not requirements and (python is None or python == self._find_default_version()):
            return self.default
        base = self._find_base(python)
        for requirement in requirements:
            if requirement.startswith("-"):
                raise CannotStart("SetupFailed", f"{requirement!r} is an option, no requirement")
        folder = self.environments / self._name(base, requirements)
        self.environments.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._hold(folder.with_suffix(".lock")):
            if not (folder / _READY).exists():
                self._build(folder, base, requirements)
        return folder / "bin" / "python"

    def _find_base(self, python: str | None) -> Path:
        if python is None or python == self._find_default_version():
            return self.default
        found = shutil.which(f"python{python}", path=SYSTEM_PATH)
        if found is None:
            raise CannotStart(
                "SetupFailed",
                f"python {python} is not on this node: install it there, or leave "
                "environment.python out",
            )
        return Path(found)

    def _name(self, base: Path, requirements: Sequence[str]) -> str:
        """Return the hash of what goes into the environment."""
        default_packages = sorted(path.name for path in self._packages().glob("*.dist-info"))
        parts = [str(base), self._ask(base, "sys.version"), sorted(requirements), default_packages]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _build(self, folder: Path, base: Path, requirements: Sequence[str]) -> None:
        """Build in place (environments cannot be moved); the mark that it is whole comes last."""
        shutil.rmtree(folder, ignore_errors=True)
        self._execute([str(base), "-m", "venv", str(folder)], "the environment cannot be made")
        own = folder / "bin" / "python"
        if self._ask_version(own) == self._find_default_version():
            # As a site folder, so that what is installed there for editing is found, too.
            packages = Path(self._ask(own, "__import__('sysconfig').get_path('purelib')"))
            line = f"import site; site.addsitedir({str(self._packages())!r})\n"
            (packages / "default_environment.pth").write_text(line, encoding="utf-8")
        if requirements:
            pip = [str(own), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
            self._execute([*pip, *requirements], "the requirements cannot be installed")
        (folder / _READY).touch()

    def _execute(self, command: Sequence[str], complaint: str) -> None:
        start_bytes = self.log.stat().st_size if self.log.exists() else 0
        procs = "/dev/null" if self.cgroup is None else str(self.cgroup.path / "cgroup.procs")
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                # In the cgroup before it can start anything of its own.
                ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', procs, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment(),
            )
        try:
            while child.poll() is None:
                if self.pause(_LOOK_S):
                    raise GivenUp("the environment was being built")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if child.returncode != 0:
            raise CannotStart("SetupFailed", f"{complaint}: {self._last_words(start_bytes)}")

    def _last_words(self, start_bytes: int) -> str:
        """Return the errors of a build, or its last line if it names none."""
        with self.log.open("rb") as log:
            log.seek(start_bytes)
            lines = log.read().decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
        return clean_text(" ".join(errors[-2:]))

    def _environment(self) -> dict[str, str]:
        return {
            # So that a build can be found and killed like a rank.
            "TRAINMASTER_RUN": str(self.run_file),
            "PATH": SYSTEM_PATH,
            # The account's own: its pip settings name the package index.
            "HOME": pwd.getpwuid(os.getuid()).pw_dir,
            "LANG": "C.UTF-8",
        }

    @contextlib.contextmanager
    def _hold(self, path: Path) -> Iterator[None]:
        """Hold the lock: whoever else wants the same environment waits for it to be built."""
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.pause(_LOOK_S):
                        raise GivenUp("another attempt was building the environment") from None
            yield
        finally:
            os.close(handle)

    def _packages(self) -> Path:
        return Path(self._ask(self.default, "__import__('sysconfig').get_path('purelib')"))

    def _find_default_version(self) -> str:
        """Return the default's major.minor, from its description where there is one."""
        with contextlib.suppress(OSError):
            text = (self.default.parent.parent / "pyvenv.cfg").read_text(encoding="utf-8")
            found = re.search(r"^version(?:_info)? *= *(\d+\.\d+)", text, re.MULTILINE)
            if found is not None:
                return found[1]
        return self._ask_version(self.default)

    def _ask_version(self, python: Path) -> str:
        return self._ask(python, "'%d.%d' % sys.version_info[:2]")

    def _ask(self, python: Path, expression: str) -> str:
        try:
            answer = subprocess.run(
                [str(python), "-I", "-c", f"import sys; print({expression})"],
                capture_output=True,
                text=True,
                timeout=_ASK_LIMIT_S,
                check=True,
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotStart("NodeFailure", f"{python} does not run: {error}") from error
        return answer.stdout.strip()
