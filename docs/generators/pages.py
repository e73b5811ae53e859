"""All generated pages, by the name of their file."""

from __future__ import annotations

from pathlib import Path

from docs.generators.commands import commands_page
from docs.generators.exit_codes import exit_codes_page
from docs.generators.run_files import run_files_page
from docs.generators.settings import configuration_page
from docs.generators.space_schema import space_file_page

REFERENCE = Path(__file__).parents[1] / "reference"

NOTE = "<!-- Made by `python -m docs.generators` from the code. Do not edit this page: edit the code. -->\n\n"


def pages() -> dict[str, str]:
    """The text of each page."""
    made = {
        "commands.md": commands_page(),
        "configuration.md": configuration_page(),
        "run_files.md": run_files_page(),
        "exit_codes.md": exit_codes_page(),
        "space_file.md": space_file_page(),
    }
    return {name: NOTE + text.rstrip() + "\n" for name, text in made.items()}
