"""`blocklist init`."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import click

from blocklist.cli.screen import Screen, safe, shared_options
from blocklist.errors import ConfigError

FOLDERS = ("feeds.d", "exporters.d", "exports")


@click.command("init")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@shared_options
def command(screen: Screen, folder: Path) -> int:
    """Write a commented blocklist.toml and its folders into DIR (here, if none is given).

    What exists is left as it is.

    \b
    Examples:
      blocklist init
      blocklist init /etc/blocklist
    """
    from blocklist.config import FILE

    wrote: list[str] = []
    kept: list[str] = []
    try:
        _folder(folder)
        for name in FOLDERS:
            (wrote if _folder(folder / name) else kept).append(f"{name}/")
        text = resources.files("blocklist").joinpath("template.toml").read_text("utf-8")
        (wrote if _file(folder / FILE, text) else kept).append(FILE)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: {error.strerror}",
            hint="name a folder that you may write: blocklist init DIR",
        ) from None
    screen.json({"folder": str(folder.absolute()), "wrote": wrote, "kept": kept})
    shown = safe(str(folder))
    if wrote:
        screen.line(f"wrote {', '.join(wrote)} in {shown}")
    if kept:
        screen.line(f"left as they were: {', '.join(kept)}")
    where = "" if folder.absolute() == Path.cwd() else f" --config {shown}"
    screen.line("next:")
    screen.line(f"  look through {safe(str(folder / FILE))}: [protect] and [verify] are yours to fill")
    screen.line(f"  blocklist feeds sets{where}: what can be enabled at once, and what the licences ask")
    screen.line(f"  blocklist update{where}")
    screen.line(f"  blocklist status{where}")
    return 0


def _folder(path: Path) -> bool:
    """Make a folder that only its owner may write; False when it is there already."""
    if not path.absolute().parent.exists():
        _folder(path.absolute().parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    # Whatever the umask: a folder that others may write is refused later, since its files name commands.
    path.chmod(0o755)
    return True


def _file(path: Path, text: str) -> bool:
    """Write `text` to a new file; False when anything is there already, a broken link too."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with open(fd, "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), 0o644)
        out.write(text)
    return True
