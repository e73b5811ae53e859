"""Commands in this process, and the one line of those that are refused."""

from __future__ import annotations

from click.testing import CliRunner, Result

from autoprune.cli import main


def invoke(*arguments: object) -> Result:
    """A command as if it were typed."""
    return CliRunner().invoke(main.main, [*map(str, arguments)])


def refused(*arguments: object, code: int = 2) -> str:
    """The message of a command that ends with `code` and one error."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output + result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("autoprune: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]
