"""SIGTERM, which reaches one process only, ends those that it has started, too."""

import os
import signal
import subprocess
import sys

import pytest

from pipa.errors import Interrupted
from pipa.run.interrupt import ending_with


def test_sigterm_is_passed_on_and_is_one_line():
    before = signal.getsignal(signal.SIGTERM)
    waits = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(waits, stdin=subprocess.PIPE) as child,
        pytest.raises(Interrupted, match="the same command goes on") as stop,
        ending_with(lambda: [child], "the same command goes on"),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.number == signal.SIGTERM
    assert child.returncode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
