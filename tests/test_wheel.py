"""The wheel, built and installed away from the checkout, does the main job from its own files alone."""

import json
import os
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def _run(*words: object, cwd: Path) -> str:
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=REPOSITORY)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, that borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    borrowed = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages()}
    (Path(paths["purelib"]) / "borrowed.pth").write_text("\n".join(sorted(borrowed)))
    python = Path(paths["scripts"]) / "python"
    _run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--ignore-installed", "--quiet", wheel, cwd=folder,
    )  # fmt: skip
    return Path(paths["scripts"])


def test_the_wheel_holds_the_programs_types_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("models", "inference"):
        shipped = {path.name for path in (REPOSITORY / kind).glob("*.py")}
        assert {
            name.removeprefix(f"bayesprune/{kind}/")
            for name in names
            if name.startswith(f"bayesprune/{kind}/")
        } == shipped
    assert "bayesprune/py.typed" in names
    assert {f"bayesprune/report/templates/page.{kind}" for kind in ("html.j2", "css")} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    outside = {name.split("/")[0] for name in names} - {"bayesprune"}
    assert all(name.endswith(".dist-info") for name in outside), (
        "bayesprune is the only package that is installed"
    )


def test_the_installed_wheel_runs_the_main_job(scripts: Path, tmp_path: Path) -> None:
    where = _run(scripts / "python", "-c", "import bayesprune; print(bayesprune.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(scripts.parent)
    assert "lenet5" in _run(scripts / "bayesprune", "list", cwd=tmp_path)
    summary = _run(scripts / "bayesprune", "run", "lenet5", "--data", "digits", "--epochs", "2", cwd=tmp_path)
    assert "Test error" in summary
    result = json.loads((tmp_path / "runs/lenet5-digits/result.json").read_text())
    assert result["dense_parameters"] == 431_080
    assert "prefers-color-scheme" in (tmp_path / "runs/lenet5-digits/report.html").read_text(encoding="utf-8")
    _run(scripts / "bayesprune", "copy", "lenet5", "mine.py", cwd=tmp_path)
    assert (tmp_path / "mine.py").read_bytes() == (REPOSITORY / "models/lenet5.py").read_bytes()
    script = (
        'import bayesprune as bp; print(sum(p.numel() for p in bp.load("runs/lenet5-digits").parameters()))'
    )
    assert int(_run(scripts / "python", "-c", script, cwd=tmp_path)) == result["parameters_kept"]
