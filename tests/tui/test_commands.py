"""The command line's words: what they stand for, what is said of those that are none, and what completes them."""

from __future__ import annotations

import pytest

from tui.commands import COMMANDS, Complaint, Order, find, hint, parse, suggestions


@pytest.mark.parametrize(
    ("line", "does", "to", "argument"),
    [
        ("fleet", "go", "fleet", ""),
        ("i -l team=search", "go", "fleet", "-l team=search"),
        (":logs alpha", "instance", "logs", "alpha"),
        ("  LOGS   ann/alpha ", "instance", "logs", "ann/alpha"),
        ("rm alpha", "verb", "delete", "alpha"),
        ("@prod", "context", "", "prod"),
        ("ctx prod", "context", "", "prod"),
        ("q!", "quit", "", ""),
        ("-", "last", "", ""),
    ],
)
def test_a_line_is_read(line: str, does: str, to: str, argument: str) -> None:
    read = parse(line)
    assert isinstance(read, Order)
    assert (read.command.does, read.command.to, read.argument) == (does, to, argument)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("restrat alpha", "There is no command restrat. Did you mean :restart?"),
        ("xyzzy", "There is no command xyzzy. :help lists them."),
        ("", "There is no command without a name. :help lists them."),
        ("quit now", ":quit takes nothing after it"),
    ],
)
def test_a_line_that_makes_no_sense_is_answered_with_what_does(line: str, said: str) -> None:
    assert parse(line) == Complaint(said)


def test_no_word_stands_for_two_commands() -> None:
    words = [word for command in COMMANDS for word in (command.name, *command.aliases)]
    assert len(words) == len(set(words))
    assert all(find(word) is not None for word in words)


def test_lines_complete_to_commands_first_and_to_instances_contexts_and_themes() -> None:
    lines = suggestions(["alpha"], ["prod"], ["corral-dark"])
    assert lines[0] == "fleet"
    assert {"logs alpha", "l alpha", "rm alpha", "contexts prod", "@prod", "theme corral-dark"} <= set(lines)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", ""),
        ("logs al", "logs [instance]: Its log"),
        ("resta", "restart [instance]: Restart it"),
        ("@pr", "contexts [context]: Another control plane; @name does it too"),
        ("xyzzy", ""),
    ],
)
def test_what_a_command_does_is_said_while_it_is_typed(line: str, said: str) -> None:
    assert hint(line) == said
