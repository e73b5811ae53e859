"""Where what is computed once is kept on disk, and the key of a value's content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def content_key(*parts: object) -> str:
    """A short name for what `parts` say: 24 hex digits of the SHA-256 of their JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Where teachers and libraries are kept: `AUTOPRUNE_CACHE`, or the user's cache folder."""
    import platformdirs

    given = os.environ.get("AUTOPRUNE_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("autoprune"))
