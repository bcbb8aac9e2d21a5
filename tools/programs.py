"""Asking other programs, and what cannot be done, in a sentence."""

import subprocess


class Stop(Exception):
    """What cannot be done here, in a sentence."""


def answers(python, question="print(1)"):
    """What a Python prints when asked; '' if it is none, or fails."""
    try:
        return subprocess.run(
            [python, "-c", question],
            stdout=subprocess.PIPE,
            timeout=60,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def output(*command):
    return subprocess.check_output(command, universal_newlines=True, stderr=subprocess.STDOUT)


def uname(option):
    return output("uname", option).strip()
