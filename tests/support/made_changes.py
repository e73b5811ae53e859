"""Made-up answers that changed, as a run of texts or pictures would record them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
PIXEL = "data:image/webp;base64,UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="


def with_changes(front: Json, *, text: str = "a fine film", classes: tuple[str, ...] = ("no", "yes")) -> Json:
    """A front whose points have changed answers: 20 rows each, every third of them a picture."""
    points = front.get("points") or {"best": front["best"], "knee": front["knee"]}
    numbers = sorted({number for number in points.values() if number is not None})
    last = len(classes) - 1
    rows, kept = [], {}
    for k in range(20):
        kept[str(k)] = {"picture": PIXEL} if k % 3 == 2 else {"text": text, "word": text if k % 3 else ""}
        rows.append(
            {"row": k, "expected": classes[0], "original": classes[0], "now": classes[last],
             "kl": 1.0 / (k + 1), "original_sure": 0.75, "now_sure": 0.5}
        )  # fmt: skip
    point = {
        "changed": 43, "lost": 30, "won": 13, "kl": 0.0123, "examples": rows,
        "confusion": [[0, 0, 700, 720], [0, last, 100, 80], [last, 0, 90, 103], [last, last, 710, 697]],
    }  # fmt: skip
    changes = {
        "sort": "class", "places": 1600, "classes": list(classes), "examples": True, "rows": kept,
        "points": {str(number): point for number in numbers},
    }  # fmt: skip
    return {**front, "answer_changes": changes}


def with_ties(front: Json) -> Json:
    """A front whose members were compared, each with each: those within 0.4 points are not told apart."""
    rows = [
        row for row in front["trials"] if row["accuracy"] is not None and (row["on_front"] or row["name"])
    ]
    pairs = [
        [one["number"], other["number"]]
        for k, one in enumerate(rows)
        for other in rows[k + 1 :]
        if abs(one["accuracy"] - other["accuracy"]) < 0.4
    ]
    return {**front, "ties": {"numbers": [row["number"] for row in rows], "pairs": pairs}}
