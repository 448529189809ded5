"""`farebox completion`: what a shell asks to complete a command line. The scripts ask this command again, with the
words that were typed, so that they know every command and option of the version that is installed."""

from collections.abc import Iterator
from inspect import unwrap
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.main import get_command

Shell = Literal["bash", "zsh", "fish"]

SCRIPTS: dict[Shell, str] = {
    "bash": """\
_farebox() {
    local IFS=$'\\n'
    COMPREPLY=($(farebox completion bash -- "${COMP_WORDS[@]:1:$COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _farebox farebox
""",
    "zsh": """\
#compdef farebox
_farebox() {
    local -a found
    found=(${(f)"$(farebox completion zsh -- "${(@)words[2,$CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _farebox "$@"; else compdef _farebox farebox; fi
""",
    "fish": """\
function __farebox_complete
    set -l typed (commandline -opc)
    farebox completion fish -- $typed[2..-1] (commandline -ct) 2>/dev/null
end
complete --command farebox --arguments '(__farebox_complete)'
""",
}


def completion(
    shell: Annotated[Shell, typer.Argument(help="Whose.")],
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Print what makes a shell complete `farebox`: bash, `eval "$(farebox completion bash)"` in ~/.bashrc; zsh, the
    same after `compinit`; fish, `farebox completion fish > ~/.config/fish/completions/farebox.fish`."""
    if words is None:
        typer.echo(SCRIPTS[shell], nl=False)
        return
    for each in candidates(words):
        typer.echo(each)


def candidates(words: list[str]) -> list[str]:
    """What the last word may become, of those after `farebox`; nothing where it is a file, or any text."""
    from farebox.cli.commands import app  # which has this command among its own

    *before, last = words
    command: Any = get_command(app)
    context = typer.Context(command)
    waiting: Any = None
    for word in before:
        if waiting is not None:
            waiting = None
        elif word.startswith("-"):
            option = next((each for each in command.params if word in each.opts), None)
            waiting = None if option is None or getattr(option, "is_flag", False) else option
        elif hasattr(command, "commands"):
            command = command.get_command(context, word)
            if command is None:
                return []
    if waiting is not None:
        found = list(_choices(command, waiting))
    elif last.startswith("-"):
        found = [name for each in command.params for name in each.opts if name.startswith("--")]
    elif hasattr(command, "commands"):
        found = command.list_commands(context)
    else:
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        found = [choice for each in arguments for choice in _choices(command, each)]
    return [each for each in dict.fromkeys(found) if each.startswith(last)]


def _choices(command: Any, parameter: Any) -> Iterator[str]:
    """The words that a parameter may be, where it is declared as one of some."""
    declared = get_type_hints(unwrap(command.callback)).get(parameter.name)
    for each in (declared, *get_args(declared)):
        if get_origin(each) is Literal:
            yield from map(str, get_args(each))
