"""Hooks of mkdocs: files of the repository that are not part of the site.

A page links to files outside `docs/`, so that a reader of the repository can follow it. On the site
such a link becomes the file's path, and a picture among them is copied to the site.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
PICTURES = (".png", ".svg")


def on_config(config: Any) -> Any:
    """The decisions stand last in the navigation, by their numbers; mkdocs.yml does not list them."""
    folder = Path(config.docs_dir) / "decisions"
    pages = [
        {path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "): f"decisions/{path.name}"}
        for path in sorted(folder.glob("*.md"))
    ]
    config.nav[-1]["The code"].append({"Decisions": pages})
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A page with its links out of `docs/` as paths."""
    folder = Path(config.docs_dir) / Path(page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / match[3]))
        if path.is_relative_to(config.docs_dir):
            return match[0]
        inside = path.relative_to(ROOT).as_posix()
        if match[1]:
            return f"![{match[2]}]({os.path.relpath(inside, Path(page.file.src_uri).parent)})"
        label = match[2].strip("`")
        return (
            f"`{inside}`" if label in (inside, inside.rstrip("/"), path.name) else f"{match[2]} (`{inside}`)"
        )

    return LINK.sub(shown, markdown)


def on_files(files: Any, *, config: Any) -> Any:
    """The pictures of benchmarks' results are files of the site too."""
    for path in sorted((ROOT / "benchmarks" / "results").iterdir()):
        if path.suffix in PICTURES:
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files
