"""``workerbus completion``: what a shell has to know to complete commands, options and files (O8).

The scripts are made of the parser itself, so they know what it knows. They start no Python when somebody presses Tab.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from workerbus.cli._commands import Commands, Parser


class Option(NamedTuple):
    """An option, or an argument by its place.

    Attributes:
        names: ``--out`` and so on; none for an argument by its place.
        what: What it is for, in one line.
        value: What its value is called; empty where it has none.
        choices: The values that there are; none where that is not known.
        files: Whether the value is the name of a file.
    """

    names: tuple[str, ...]
    what: str
    value: str
    choices: tuple[str, ...]
    files: bool


class Command(NamedTuple):
    """A command.

    Attributes:
        name: Its name.
        what: What it does, in one line.
        options: Its options.
        places: Its arguments by their place.
    """

    name: str
    what: str
    options: tuple[Option, ...]
    places: tuple[Option, ...]


def add_completion(commands: Commands) -> None:
    """Add the command ``completion``."""
    parser = commands.add_parser(
        "completion",
        help="print a script that lets a shell complete these commands",
        description="Print a script that lets a shell complete the commands of workerbus, their options and files.",
        epilog='bash: eval "$(workerbus completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, behind compinit.'
        " fish: workerbus completion fish > ~/.config/fish/completions/workerbus.fish",
    )
    parser.add_argument("shell", choices=tuple(_SHELLS), help="for which shell")
    parser.set_defaults(run=completion)


def completion(given: argparse.Namespace) -> int:
    """Print the script for a shell."""
    sys.stdout.write(_SHELLS[given.shell](given.parser))
    return 0


def _options(arguments: Iterable[argparse.Action]) -> tuple[Option, ...]:
    return tuple(
        Option(
            tuple(each.option_strings),
            " ".join(((each.help or "") % vars(each)).partition(";")[0].split()),
            "" if each.nargs == 0 else str(each.metavar or each.dest),
            tuple(map(str, each.choices or ())),
            each.type is Path,
        )
        for each in arguments
    )


def _commands(parser: Parser) -> list[Command]:
    found = []
    for name, (what, command) in parser.commands.items():
        every = _options(command.arguments)
        options, places = (tuple(each for each in every if bool(each.names) is named) for named in (True, False))
        found.append(Command(name, what, options, places))
    return found


# --- bash

_BASH: Final = """\
# Completion of workerbus for bash: eval "$(workerbus completion bash)"
_workerbus() {{
    local word command="" words="" cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $word == -* ]] || {{ command=$word; break; }}
    done
    COMPREPLY=()
    case "$command $prev" in
{values}
    esac
    case $command in
        "") words="{commands} {options}" ;;
{cases}
    esac
    COMPREPLY+=($(compgen -W "$words" -- "$cur"))
}}
complete -o filenames -F _workerbus workerbus
"""
_BASH_FILES: Final = 'COMPREPLY=($(compgen -f -- "$cur"))'


def _bash(parser: Parser) -> str:
    values, cases = [], []
    for command in _commands(parser):
        for option in command.options:
            if option.value:
                pattern = "|".join(f'"{command.name} {name}"' for name in option.names)
                reply = (
                    _BASH_FILES
                    if option.files
                    else f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur"))'
                    if option.choices
                    else ":"
                )
                values.append(f"        {pattern}) {reply}; return ;;")
        names = [name for option in command.options for name in option.names]
        names += [choice for place in command.places for choice in place.choices]
        files = f" {_BASH_FILES} ;;" if any(place.files for place in command.places) else ";"
        cases.append(f'        {command.name}) words="{" ".join(names)}";{files}')
    return _BASH.format(
        values="\n".join(values),
        cases="\n".join(cases),
        commands=" ".join(parser.commands),
        options=" ".join(name for option in _options(parser.arguments) for name in option.names),
    )


# --- zsh

_ZSH: Final = """\
#compdef workerbus
# Completion of workerbus for zsh: eval "$(workerbus completion zsh)", behind compinit
_workerbus() {{
    local line
    _arguments -C {options} '1: :(({commands}))' '*::argument:->rest'
    case $line[1] in
{cases}
    esac
}}
if [[ $funcstack[1] == _workerbus ]]; then _workerbus "$@"; else compdef _workerbus workerbus; fi
"""


def _zsh_text(text: str, but: str = "") -> str:
    """Escape what means something inside of '…' and of ``_arguments``."""
    text = text.replace("'", "").replace('"', "").replace("\\", "")
    return "".join(f"\\{each}" if each in f":[]{but}" else each for each in text)


def _zsh_option(option: Option) -> str:
    value = ""
    if option.value:
        action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.files else " "
        value = f":{_zsh_text(option.value)}:{action}"
    return " ".join(f"'{name}[{_zsh_text(option.what)}]{value}'" for name in option.names)


def _zsh_place(place: Option) -> str:
    action = f"({' '.join(place.choices)})" if place.choices else "_files" if place.files else " "
    return f"':{_zsh_text(place.value)}:{action}'"


def _zsh_arguments(command: Command) -> str:
    return " ".join((*map(_zsh_option, command.options), *map(_zsh_place, command.places)))


def _zsh(parser: Parser) -> str:
    commands = _commands(parser)
    return _ZSH.format(
        options=" ".join(map(_zsh_option, _options(parser.arguments))),
        commands=" ".join(f'{each.name}\\:"{_zsh_text(each.what, "()")}"' for each in commands),
        cases="\n".join(f"        {each.name}) _arguments {_zsh_arguments(each)} ;;" for each in commands),
    )


# --- fish


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_line(option: Option, condition: str) -> str:
    names = "".join(f" -{'l' if name.startswith('--') else 's'} {name.lstrip('-')}" for name in option.names)
    value = "" if not option.value else f" -xa {_fish_text(' '.join(option.choices))}" if option.choices else " -x"
    if option.files:
        value = " -rF" if option.names else " -F"
    elif not option.names and not option.choices:
        return ""
    return f"complete -c workerbus -n {condition}{names}{value} -d {_fish_text(option.what)}\n"


def _fish(parser: Parser) -> str:
    lines = [
        "# Completion of workerbus for fish: workerbus completion fish > ~/.config/fish/completions/workerbus.fish\n",
        "complete -c workerbus -f\n",
    ]
    lines += [_fish_line(option, "__fish_use_subcommand") for option in _options(parser.arguments)]
    for command in _commands(parser):
        lines.append(
            f"complete -c workerbus -n __fish_use_subcommand -a {command.name} -d {_fish_text(command.what)}\n"
        )
        condition = _fish_text(f"__fish_seen_subcommand_from {command.name}")
        lines += [_fish_line(option, condition) for option in (*command.options, *command.places)]
    return "".join(lines)


_SHELLS: Final = {"bash": _bash, "zsh": _zsh, "fish": _fish}
