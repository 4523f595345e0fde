"""`corral completion`: the script that lets a shell complete commands, options and instance names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from controlplane.cli.app import COMPLETE_VARIABLE, root
from controlplane.cli.exits import program

INSTALL = """\b
Now, in bash:  source <({corral} completion bash)
For good:
  bash:  {corral} completion bash >> ~/.bash_completion
  zsh:   {corral} completion zsh > "${{fpath[1]}}/_corral"
  fish:  {corral} completion fish > ~/.config/fish/completions/corral.fish

zsh and fish want `corral` on PATH: ln -s "$PWD/corral" ~/.local/bin/corral
""".format(corral=program())


@click.command(short_help="Print the completion script for bash, zsh or fish.", epilog=INSTALL)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, options and instance names."""
    make = get_completion_class(shell)
    assert make is not None
    click.echo(make(root, {}, "corral", COMPLETE_VARIABLE).source())
