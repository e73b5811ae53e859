"""The page by axe-core (the rules of WCAG and good practice), and under many hostile names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from autoprune.report.page import render
from tests.report.test_progress import timed
from tests.report.test_report import Json, classed, climbed, hostile, lined, synthetic

FRONT = lined(classed(timed(climbed(synthetic()))))

PAYLOADS = (
    "<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "<svg onload=window.hacked=1>",
    "</script><script>window.hacked=1</script>", "</noscript><img src=x onerror=window.hacked=1>",
    "</title><script>window.hacked=1</script>", "</style><script>window.hacked=1</script>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<a href=javascript:window.hacked=1>x</a>",
    "<math><mi xlink:href=javascript:window.hacked=1>", "<details open ontoggle=window.hacked=1>",
    "<body onload=window.hacked=1>", "<input autofocus onfocus=window.hacked=1>",
    "<base href=//example.invalid>",
    "<link rel=stylesheet href=//example.invalid>", "<meta http-equiv=refresh content='0;url=javascript:1'>",
    "<object data=javascript:window.hacked=1>", "<embed src=javascript:window.hacked=1>",
    "<video src=x onerror=window.hacked=1>", "<form action=javascript:window.hacked=1><button>",
    "\" onmouseover=window.hacked=1 x=\"", "' onmouseover=window.hacked=1 x='",
    "javascript:window.hacked=1",
    "{{ 7*7 }}", "${window.hacked=1}", "`${window.hacked=1}`", "';window.hacked=1;//",
    "\\\";window.hacked=1;//",
    "<!--<script>", "-->", "]]>", "\u2028window.hacked=1\u2029",
    "&lt;script&gt;window.hacked=1&lt;/script&gt;",
    "<ScRiPt>window.hacked=1</sCrIpT>", "<script\x0c>window.hacked=1</script>",
    "<<script>window.hacked=1//<</script>",
    "<style>*{background:url(//example.invalid)}</style>", "<div style=width:expression(1)>",
    "<svg><script>window.hacked=1</script></svg>", "<svg><animate onbegin=window.hacked=1 attributeName=x>",

    "<template><script>window.hacked=1</script></template>", "__proto__", "constructor", "hasOwnProperty",
    "toString", "=cmd|' /C calc'!A0", "@SUM(1+1)", "+1+1", "-1-1", "%3Cscript%3E", "#x=size&trial=1",
    "data:text/html,<script>window.hacked=1</script>", "<x onclick=window.hacked=1>", "\u202egnp.exe",
)  # fmt: skip


def named_badly(front: Json) -> Json:
    """The same front with a hostile name at every place that can hold one: units, kinds, workers, causes."""
    new = hostile(front)
    count = len(PAYLOADS)
    for k, unit in enumerate(new["units"]):
        name, old = PAYLOADS[k % count], unit["name"]
        unit |= {"name": name, "kind": PAYLOADS[(k + 15) % count]}
        for trial in new["trials"]:
            for field in ("levels", "unit_bytes", "unit_ms"):
                if old in trial[field]:
                    trial[field][name] = trial[field].pop(old)
        for row in new["sensitivity"]["levels"]:
            row[0] = name if row[0] == old else row[0]
    for k, trial in enumerate(new["trials"]):
        trial["worker"] = PAYLOADS[(k + 30) % count]
        if trial["state"] == "FAIL":
            trial["failure"] = PAYLOADS[k % count]
    new["run"]["versions"] = {text: text for text in PAYLOADS}
    new["class_scores"]["classes"] = [PAYLOADS[-1 - k] for k in range(4)]
    new["lines"][0] |= {"name": PAYLOADS[1], "what": PAYLOADS[2]}
    return new


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(visit: Callable[[Json], Any], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(FRONT)
    page.emulate_media(color_scheme=scheme)
    found = axe.Axe().run(page).response
    wrong = [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in found["violations"]]
    assert wrong == []
    assert len(found["passes"]) > 30


def test_no_script_runs_from_fifty_hostile_names(visit: Callable[[Json], Any]) -> None:
    assert len(PAYLOADS) >= 50
    page = visit(named_badly(FRONT))
    scripts = page.locator("script").count()
    for selector in ("#trials .pick", "#timeline .span", "#chart .point", "#scatter .point"):
        for k in (0, 5, 13):
            page.locator(selector).nth(k).dispatch_event("click")
    for selector in ("#heat td[tabindex]", "#timeline .span", "#map th"):
        page.locator(selector).nth(1).dispatch_event("pointerover", {"bubbles": True})
    page.locator("#filter-find").fill(PAYLOADS[0])
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("Object.prototype.hasOwnProperty('levels')") is False
    assert scripts == page.locator("script").count() == 2
    for tag in ("img", "iframe", "object", "embed", "video", "base", "link[rel=stylesheet]", "math"):
        assert page.locator(tag).count() == 0
    attributes = page.evaluate("[...document.querySelectorAll('*')].flatMap((n) => n.getAttributeNames())")
    assert not [name for name in attributes if name.startswith("on")]


def test_the_policy_allows_no_request_and_no_other_script(tmp_path: Any) -> None:
    policy = render(copy.deepcopy(FRONT)).partition('Security-Policy" content="')[2].partition('"')[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["script-src"].count("sha256-") == rules["style-src"].count("sha256-") == 1
    assert "unsafe" not in policy
    assert "connect-src" not in rules
