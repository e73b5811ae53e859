"""What a shell offers after TAB: the command that prints its script, and the words of flags and arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from autoprune.space.point_names import POINT_NAMES
from autoprune.space.shipped import spaces_folder

SHELLS = ("bash", "zsh", "fish")

TARGETS = ("openvino", "onnx", "packed", "compressed-tensors", "torch", "gguf")
"""As `targets.NAMES`, which takes half a second to import; a test holds them together."""

SAMPLER_NAMES = ("autoprune", "tpe", "nsga2", "random", "gp")
"""As `strategy.samplers.SAMPLERS`, likewise."""

RENDERS = ("cluster", "rayjob", "skypilot", "slurm")
"""As `jobs.renders.KINDS`, likewise."""

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]
"""What click asks for the words that may stand in the place of one that is begun."""


def offering(names: Callable[[], Iterable[str]] | Iterable[str], *, kind: str = "") -> Offer:
    """Offers names, and files ("file") or folders ("dir") where none of them begins so."""

    def offer(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        fitting = [name for name in (names() if callable(names) else names) if name.startswith(incomplete)]
        if not fitting and kind:  # bash would drop names that stand beside files
            return [CompletionItem(incomplete, type=kind)]
        return [CompletionItem(name) for name in fitting]

    return offer


def _space_names() -> list[str]:
    return ["auto", *sorted(path.stem for path in spaces_folder().glob("*.yaml"))]


OF_FILES, OF_FOLDERS = offering((), kind="file"), offering((), kind="dir")
OF_TARGETS, OF_SAMPLERS, OF_RENDERS = offering(TARGETS), offering(SAMPLER_NAMES), offering(RENDERS)
OF_POINTS, OF_SPACES = offering(POINT_NAMES), offering(_space_names, kind="file")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, flags, targets, samplers, spaces and paths.

    \b
    eval "$(autoprune completion bash)"                 in ~/.bashrc
    eval "$(autoprune completion zsh)"                  in ~/.zshrc, after compinit
    autoprune completion fish > ~/.config/fish/completions/autoprune.fish
    """
    of_shell = get_completion_class(shell)
    assert of_shell is not None  # click has those of `SHELLS`
    name = "autoprune"
    click.echo(of_shell(context.find_root().command, {}, name, "_AUTOPRUNE_COMPLETE").source(), nl=False)
