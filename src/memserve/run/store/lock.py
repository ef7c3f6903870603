"""An exclusive lock on an open file that the kernel releases when its process dies, however it dies."""

import sys

if sys.platform == "win32":
    import msvcrt
    import os

    FAR = 1 << 62

    def take(descriptor: int) -> bool:
        """Lock one byte far behind the end; False if somebody else holds it."""
        here = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, here, os.SEEK_SET)
        return True

else:
    import fcntl

    def take(descriptor: int) -> bool:
        """Lock the file; False if somebody else holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
