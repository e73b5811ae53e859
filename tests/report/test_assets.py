"""Every script and style of the report is in a page that is made of them."""

from __future__ import annotations

from autoprune.report import page
from autoprune.report.compared import page as compared
from tests.support.paths import ROOT


def test_none_is_left_out_and_none_is_twice() -> None:
    files = sorted(
        path.name
        for path in (ROOT / "autoprune" / "report" / "assets").iterdir()
        if path.suffix in (".css", ".js")
    )
    named = [*page.STYLES, *page.SCRIPTS, page.LIVE_SCRIPT]
    assert len(set(named)) == len(named)
    used = {*named, *compared.STYLES, *compared.SCRIPTS}
    assert sorted(used) == files
