from __future__ import annotations

import threading
import time

import pytest

from autoseg.core.errors import ConfigError
from autoseg.training.commands import COMMANDS, Command, Mailbox, help_text, parse_command


def test_every_command_is_parsed_as_its_help_writes_it():
    for name, usage in COMMANDS.items():
        argument = usage.argument.strip("[]")
        assert parse_command(f" {name}  {argument} ") == Command(name, argument)
    assert all(name in help_text() for name in COMMANDS)


@pytest.mark.parametrize(
    ("text", "advice"),
    [("setrl 0.1", "setlr"), ("setlr", "setlr RATE"), ("kill now", "kill"), ("import os", "help"), ("", "help")],
)
def test_a_wrong_command_is_answered_with_the_right_form(text, advice):
    with pytest.raises(ConfigError, match=advice):
        parse_command(text)


def test_letters_arrive_once_in_order_and_answers_return_to_their_sender(tmp_path):
    mailbox = Mailbox(tmp_path / "commands")
    assert list(mailbox.receive()) == []
    keys = [mailbox.send(text) for text in ("status", "setlr 0.1")]
    letters = mailbox.receive()
    assert [letter.text for letter in letters] == ["status", "setlr 0.1"]
    assert [letter.key for letter in letters] == keys
    assert list(mailbox.receive()) == []
    thread = threading.Timer(0.3, mailbox.answer, (keys[1], "learning rate 0.1"))
    thread.start()
    assert mailbox.wait(keys[1], 10) == "learning rate 0.1"
    thread.join()


def test_a_command_is_obeyed_or_taken_back_and_never_both(tmp_path):
    mailbox = Mailbox(tmp_path)
    key = mailbox.send("abort")
    assert mailbox.wait(key, 0) is None
    assert mailbox.take_back(key)
    assert list(mailbox.receive()) == []
    key = mailbox.send("abort")
    assert [letter.text for letter in mailbox.receive()] == ["abort"]
    assert not mailbox.take_back(key)


def test_a_start_removes_what_was_sent_before_it_and_nothing_that_is_being_sent(tmp_path):
    mailbox = Mailbox(tmp_path)
    mailbox.send("abort")
    mailbox.answer(mailbox.send("status"), "iteration 1")
    begun = time.time_ns()
    mailbox.send("setlr 0.1")
    being_written = tmp_path / ".77.tmp.01795791008291248615-aee7ca42.command.json"
    being_written.touch()
    mailbox.clear(begun)
    assert [letter.text for letter in mailbox.receive()] == ["setlr 0.1"]
    assert [path.name for path in tmp_path.iterdir()] == [being_written.name]
