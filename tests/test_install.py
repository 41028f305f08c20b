"""A package that is built holds every module and every file of data."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_built_package_holds_every_module_and_every_file_of_data(tmp_path: Path) -> None:
    # An editable install finds what pyproject.toml forgets to name; the one that README shows does not.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for folder in ("blocklist", "feeds", "exporters"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    wanted = {
        (Path() if folder == "blocklist" else Path("blocklist")) / file.relative_to(source)
        for folder in ("blocklist", "feeds", "exporters")
        for file in (source / folder).rglob("*")
        if file.is_file()
    }
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wanted - {Path(name) for name in zipfile.ZipFile(wheel).namelist()} == set()
