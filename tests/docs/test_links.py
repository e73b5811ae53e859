"""Every link of the documentation leads somewhere, and every page can be found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.doc_pages import PAGES, anchors, links, text_of
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(link)
        assert path.is_relative_to(ROOT), f"{link} leads out of the repository"
    assert not broken


def test_the_readme_is_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 120


def test_the_site_has_every_page() -> None:
    """All but the decisions, which a hook lists."""
    nav = yaml.safe_load(text_of(ROOT / "mkdocs.yml"))["nav"]
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(_leaves(nav)) == sorted(page for page in pages if not page.startswith("decisions/"))


def test_pictures_are_small() -> None:
    for path in (DOCS / "images").iterdir():
        assert path.stat().st_size <= 60_000, f"{path} is large: fewer colours, or a smaller part"


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [leaf for child in children for leaf in _leaves(child)]
