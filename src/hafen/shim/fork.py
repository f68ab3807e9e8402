"""Fork a helper of this process: it keeps only the descriptors named, dies with its parent, and never returns."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Collection

from hafen.kernel import process
from hafen.kernel.process import close_all_but as close_all_but


def fork(run: Callable[[], None], keep: Collection[int] = ()) -> int:
    """The pid of a child that executes `run` and exits: 0, or 1 where `run` raised. Standard streams stay open."""
    pid = os.fork()  # noqa: TID251 - single threaded by design
    if pid:
        return pid
    status = 1
    try:
        gc.disable()  # it would dirty pages shared with the parent
        process.set_parent_death_signal(signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        close_all_but(keep)
        run()
        status = 0
    except BaseException:  # noqa: BLE001 - the process's last boundary
        sys.excepthook(*sys.exc_info())  # not the module traceback: it alone would cost 4 ms of every start-up
        sys.stderr.flush()
    finally:
        os._exit(status)
