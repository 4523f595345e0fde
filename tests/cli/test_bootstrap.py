"""`./corral` on checkouts of its own: tiny packages, real environments, no network."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from attrs import define

SCRIPT = Path(__file__).parents[2] / "corral"
TIMEOUT_S = 120.0

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "demo"
version = "1.0"
"""
BACKEND = """
import zipfile
from pathlib import Path
ROOT = Path(__file__).parent
def get_requires_for_build_editable(settings=None): return []
def build_editable(folder, settings=None, metadata=None):
    if (ROOT / "slow").exists(): open(ROOT / "slow").read()
    with zipfile.ZipFile(Path(folder) / "demo-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("demo.pth", str(ROOT))
        wheel.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n")
        wheel.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("demo-1.0.dist-info/entry_points.txt", "[console_scripts]\\ndemo = controlplane.cli:main\\n")
        wheel.writestr("demo-1.0.dist-info/RECORD", "")
    return "demo-1.0-py3-none-any.whl"
"""
COMMAND = """
import importlib.util, json, os, sys
has = [name for name in ("stub_packages", "stub_tests", "stub_node") if importlib.util.find_spec(name)]
print(json.dumps({"arguments": sys.argv[1:], "prefix": sys.prefix, "has": has, "cwd": os.getcwd(),
                  "program": os.environ.get("CORRAL_PROGRAM"), "path": sys.path}))
"""
LOCKS = {"packages": "requirements.txt", "tests": "requirements-test.txt", "node": "requirements-node.txt"}


def write_wheel(folder: Path, name: str) -> str:
    """Write a package of one empty module; returns its line for a lock file."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": b"",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}"
        for file, content in files.items()
    ]
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
        wheel.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def make_checkout(root: Path, wheels: Path) -> None:
    (root / "controlplane" / "cli").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "corral")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    (root / "controlplane" / "__init__.py").write_text("")
    (root / "controlplane" / "cli" / "__init__.py").write_text("")
    (root / "controlplane" / "cli" / "__main__.py").write_text(COMMAND)
    wheels.mkdir(exist_ok=True)
    for part, lock in LOCKS.items():
        (root / lock).write_text(write_wheel(wheels, f"stub_{part}"))


@define
class Checkout:
    root: Path
    wheels: Path
    programs: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_", "CORRAL_", "_CORRAL"))
        }
        own = {
            "PATH": str(self.programs),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
        }
        own |= {
            "UV_OFFLINE": "1",
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": str(self.wheels),
            "UV_CACHE_DIR": str(self.wheels / "cache"),
        }
        return kept | own | more

    def run(
        self,
        *arguments: str,
        script: Path | None = None,
        python: str = sys.executable,
        cwd: Path | None = None,
        **more: str,
    ):
        command = [python, str(script or self.root / "corral"), *arguments]
        return subprocess.run(
            command,
            env=self.environment(**more),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    def answer(self, *arguments: str, **options) -> dict:
        result = self.run(*arguments, **options)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    @property
    def log(self) -> str:
        return (self.root / ".venv" / "corral-setup.log").read_text()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that was set up once, by running it."""
    folder = tmp_path_factory.mktemp("bootstrap")
    (folder / "programs").mkdir()
    (folder / "programs" / "node").symlink_to("/bin/true")
    checkout = Checkout(folder / "template", folder / "wheels", folder / "programs")
    make_checkout(checkout.root, checkout.wheels)
    first = checkout.run("hello", "--world", cwd=folder)
    assert first.returncode == 0, first.stderr
    (folder / "first.json").write_text(first.stdout)
    (folder / "first.txt").write_text(first.stderr)
    return checkout


@pytest.fixture
def checkout(template: Checkout, tmp_path: Path) -> Checkout:
    """A copy of it, which is as good as a move."""
    shutil.copytree(template.root, tmp_path / "copy", symlinks=True)
    shutil.copytree(template.programs, tmp_path / "programs", symlinks=True)
    return Checkout(tmp_path / "copy", template.wheels, tmp_path / "programs")


def test_the_first_run_says_what_it_does_in_a_few_lines_and_becomes_the_command(template):
    said = (template.root.parent / "first.txt").read_text().splitlines()
    answer = json.loads((template.root.parent / "first.json").read_text())
    assert said == [
        f"corral: first start: setting up {template.root}/.venv (once; about 20 s, 200 MB)",
        "corral: installing the locked packages with pip",
        "corral: installing Corral itself with pip",
    ]
    assert answer["arguments"] == ["hello", "--world"]
    assert answer["prefix"] == str(template.root / ".venv")
    assert answer["cwd"] == str(template.root.parent)
    assert answer["cwd"] not in answer["path"]
    assert "" not in answer["path"]
    assert answer["has"] == ["stub_packages"]


def test_the_next_run_only_looks_and_needs_no_installer(template):
    before = template.log
    result = template.run("x", PIP_FIND_LINKS="/nowhere")
    assert (result.returncode, result.stderr) == (0, "")
    assert template.log == before


def test_tests_and_node_are_installed_when_they_are_wanted_only(checkout):
    assert checkout.answer("test")["has"] == ["stub_packages", "stub_tests"]
    (checkout.programs / "node").unlink()
    assert checkout.answer("ls")["has"] == ["stub_packages", "stub_tests"]
    result = checkout.run("--json", "up")
    assert "there is no node on PATH: installing Node too, for npx servers (61 MB)" in result.stderr
    assert json.loads(result.stdout)["has"] == ["stub_packages", "stub_tests", "stub_node"]


def test_a_moved_checkout_repairs_itself_without_a_network(checkout):
    result = checkout.run("x", PIP_FIND_LINKS="/nowhere")
    assert result.returncode == 0, result.stderr
    assert "this checkout was moved here from" in result.stderr
    answer = json.loads(result.stdout)
    assert answer["prefix"] == str(checkout.root / ".venv")
    assert str(checkout.root) in answer["path"]
    assert str(checkout.root / ".venv/bin/python") in (checkout.root / ".venv/bin/demo").read_text()
    assert (checkout.root / ".venv/pyvenv.cfg").read_text().count(str(checkout.root.parent)) <= 1
    assert checkout.run("x").stderr == ""


def test_a_link_on_path_is_called_by_its_name(checkout, tmp_path):
    (checkout.programs / "corral").symlink_to(checkout.root / "corral")
    assert checkout.answer("x", script=checkout.programs / "corral")["program"] == "corral"
    assert checkout.answer("x", script=checkout.root / "corral")["program"] == str(checkout.root / "corral")


def test_a_changed_lock_file_is_installed_and_a_wrong_hash_is_refused_with_the_reason(checkout):
    checkout.answer("x")
    lock = checkout.root / "requirements.txt"
    good = lock.read_text()
    lock.write_text(re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", good))
    shutil.rmtree(next((checkout.root / ".venv").glob("lib/*/site-packages/stub_packages-1.0.dist-info")))
    failed = checkout.run("x")
    assert failed.returncode == 1
    assert re.search(r"  \| .*(hash|HASH)", failed.stderr)
    assert "A file differs from the lock file" in failed.stderr
    lock.write_text(good + write_wheel(checkout.wheels, "stub_more"))
    mended = checkout.run("x")
    assert mended.returncode == 0
    assert "first start" not in mended.stderr  # what stood was built upon
    assert "stub_more-1.0" in checkout.log


def test_an_index_out_of_reach_is_told_apart_from_a_missing_wheel(checkout):
    with (checkout.root / "requirements.txt").open("a") as lock:
        lock.write(f"nowhere==1.0 --hash=sha256:{'0' * 64}\n")
    assert "has no such wheel for this machine" in checkout.run("x").stderr
    away = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_RETRIES": "1", "PIP_FIND_LINKS": ""}
    assert "out of reach: run this again when online" in checkout.run("x", **away).stderr


def test_an_install_that_was_killed_is_begun_anew(checkout):
    (checkout.root / ".venv" / "corral-unfinished").touch()
    (checkout.root / ".venv" / "half-written").touch()
    result = checkout.run("x")
    assert result.returncode == 0
    assert "first start" in result.stderr
    assert not (checkout.root / ".venv" / "half-written").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    (checkout.root / ".venv/bin/python").unlink()
    (checkout.root / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    result = checkout.run("x")
    assert result.returncode == 0
    assert "first start" in result.stderr


def test_two_at_once_set_up_once(checkout):
    (checkout.root / "requirements.txt").write_text((checkout.root / "requirements.txt").read_text() + "# changed\n")
    command = [sys.executable, str(checkout.root / "corral"), "x"]
    both = [
        subprocess.Popen(command, env=checkout.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=TIMEOUT_S)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("installing Corral itself" in text for text in said) == 1


def test_ctrl_c_ends_the_install_and_the_next_run_finishes_it(checkout):
    os.mkfifo(checkout.root / "slow")
    command = [sys.executable, str(checkout.root / "corral"), "x"]
    process = subprocess.Popen(
        command,
        env=checkout.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with (checkout.root / "slow").open("w"):  # opens once the build reads it
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "interrupted; run it again to go on" in said
    assert "Traceback" not in said
    (checkout.root / "slow").unlink()
    assert checkout.run("x").returncode == 0


def test_uv_is_used_where_it_is_on_path(checkout):
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert uv is not None
    (checkout.programs / "uv").symlink_to(uv)
    shutil.rmtree(checkout.root / ".venv")
    result = checkout.run("x")
    assert result.returncode == 0, result.stderr
    assert "installing the locked packages with uv" in result.stderr
    assert json.loads(result.stdout)["has"] == ["stub_packages"]


def as_interpreter(python: Path, checkout: Checkout) -> list[str]:
    """Run the script as if the interpreter were another program."""
    code = f"import runpy, sys; sys.executable = {str(python)!r}; sys.argv[:] = ['./corral', 'x']; runpy.run_path('corral', run_name='__main__')"
    return [sys.executable, "-c", code]


def test_a_python_without_ensurepip_borrows_a_pip(checkout):
    """As on Debian, where `venv` works with `--without-pip` only."""
    base = getattr(sys, "_base_executable", sys.executable)
    has_pip = [
        p
        for p in (sys.executable, base)
        if subprocess.call([p, "-m", "pip", "--version"], stdout=subprocess.DEVNULL) == 0
    ]
    assert has_pip, "no Python with pip here"
    python = checkout.programs / "python3"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *--without-pip*) exec {base} "$@";; *"-m venv"*) exit 1;; esac\nexec {has_pip[0]} "$@"\n'
    )
    python.chmod(0o755)
    shutil.rmtree(checkout.root / ".venv")
    command = as_interpreter(python, checkout)
    result = subprocess.run(
        command,
        env=checkout.environment(),
        cwd=checkout.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["has"] == ["stub_packages"]
    assert not list((checkout.root / ".venv").glob("lib/*/site-packages/pip"))


def test_a_host_without_a_fitting_python_is_told_what_to_install(checkout, tmp_path):
    shutil.rmtree(checkout.root / ".venv")
    result = subprocess.run(
        as_interpreter(Path("/bin/false"), checkout),
        env=checkout.environment(HOME=str(tmp_path), PYENV_ROOT=""),
        cwd=checkout.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 1
    assert "Corral needs Python 3.11, 3.12 or 3.13." in result.stderr
    assert "apt install python3" in result.stderr


def test_an_old_python_can_parse_the_script_and_finds_a_newer_one():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_a_shell_that_completes_a_word_starts_no_installation(checkout):
    shutil.rmtree(checkout.root / ".venv")
    result = checkout.run(_CORRAL_COMPLETE="bash_complete")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not (checkout.root / ".venv").exists()


def test_nothing_is_written_outside_the_checkout(checkout, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (checkout.root / "requirements.txt").write_text((checkout.root / "requirements.txt").read_text() + "# changed\n")
    checkout.answer("x", HOME=str(home), XDG_CACHE_HOME=str(checkout.root / "cache"))
    assert list(home.iterdir()) == []
