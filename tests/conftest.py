"""One thread for the whole test process, set before MXNet is loaded.

A process must not raise its number of threads once it has computed: oneDNN keeps what it prepared
for fewer, and writes past its end (see `gluon_bn.runtime.configure`). And a busy machine runs one
thread several times faster than two that wait for each other. What needs more has a process of its
own.
"""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"

# Where the tests run in the background of a shell, Ctrl-C is ignored, by what they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
