#!/usr/bin/env python3
"""Locks between processes on the file system of a file, which is made: ranges
(fcntl), whole files (flock), deadlocks, and locks of open files (OFD)."""
import errno
import fcntl
import os
import struct
import sys
import time

path = sys.argv[1]


class Process:
    """A process that locks as it is told, with a descriptor of its own."""

    all = []

    def __init__(self):
        ask, self.answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for other in Process.all:
                other.ask.close()
            os.close(ask[1])
            self.serve(os.fdopen(ask[0]))
            os._exit(0)
        os.close(ask[0])
        os.close(self.answers[1])
        self.ask = os.fdopen(ask[1], "w", buffering=1)
        self.read = os.fdopen(self.answers[0])
        Process.all.append(self)

    def serve(self, questions):
        out = os.fdopen(self.answers[1], "w", buffering=1)
        f = open(path, "r+b", buffering=0)
        for line in questions:
            how, *args = line.split()
            args = [int(a) for a in args]
            try:
                if how == "posix":  # kind, length, start
                    fcntl.lockf(f, *args)
                elif how == "flock":
                    fcntl.flock(f, *args)
                elif how == "ofd":  # command, type, start, length
                    command, kind, start, length = args
                    fcntl.fcntl(f, command, struct.pack("hhqqixxxx", kind, 0, start, length, 0))
                elif how == "reopen":
                    open(path, "rb").close()
                out.write("ok\n")
            except OSError as e:
                out.write(errno.errorcode[e.errno] + "\n")

    def start(self, *words):
        self.ask.write(" ".join(str(w) for w in words) + "\n")

    def __call__(self, *words):
        self.start(*words)
        return self.answer()

    def answer(self):
        return self.read.readline().strip()

    def end(self):
        self.ask.close()
        os.waitpid(self.pid, 0)


def want(what, got, *expected):
    if got not in expected:
        sys.exit(f"{what}: {got}, want {' or '.join(expected)}")


EX, SH, UN, NB = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_NB
BUSY = ("EAGAIN", "EACCES")
open(path, "wb").write(b"x" * 1000)
a, b, c = Process(), Process(), Process()

want("a locks 0-99", a("posix", EX | NB, 100, 0), "ok")
want("b locks 100-199", b("posix", EX | NB, 100, 100), "ok")
want("b locks 99", b("posix", EX | NB, 1, 99), *BUSY)
want("b reads 99", b("posix", SH | NB, 1, 99), *BUSY)
want("a locks up to the end", a("posix", EX | NB, 0, 500), "ok")
want("b locks far off", b("posix", SH | NB, 1, 1 << 40), *BUSY)
want("a shares 0-49", a("posix", SH | NB, 50, 0), "ok")
want("c shares 0-49", c("posix", SH | NB, 50, 0), "ok")
want("c shares 50", c("posix", SH | NB, 1, 50), *BUSY)
want("a splits", a("posix", UN, 10, 70), "ok")
want("c takes the gap", c("posix", EX | NB, 10, 70), "ok")
want("c takes more than the gap", c("posix", EX | NB, 11, 70), *BUSY)

a.start("posix", EX, 1, 150)  # waits for b
b.start("posix", EX, 1, 75)  # waits for c
time.sleep(1)  # until they do wait
want("c closes the circle", c("posix", EX, 1, 600), "EDEADLK", "EDEADLOCK")  # held by a
want("c lets go", c("posix", UN, 0, 0), "ok")
want("b gets it", b.answer(), "ok")
want("b lets go", b("posix", UN, 0, 0), "ok")
want("a gets it", a.answer(), "ok")
want("a closes another descriptor", a("reopen"), "ok")
want("which loses all of its locks", b("posix", EX | NB, 0, 0), "ok")
b.end()
want("and so does a process that ends", c("posix", EX | NB, 0, 0), "ok")
want("c lets go", c("posix", UN, 0, 0), "ok")

want("a flocks", a("flock", EX | NB), "ok")
want("c flocks", c("flock", SH | NB), *BUSY)
want("ranges are another matter", c("posix", EX | NB, 0, 0), "ok")
want("c lets go", c("posix", UN, 0, 0), "ok")
c.start("flock", SH)
time.sleep(0.5)
want("a shares", a("flock", SH), "ok")
want("c gets it", c.answer(), "ok")
want("a unlocks", a("flock", UN), "ok")
want("c converts", c("flock", EX | NB), "ok")
want("c unlocks", c("flock", UN), "ok")

F_OFD_SETLK = 37
want("a locks its open file", a("ofd", F_OFD_SETLK, fcntl.F_WRLCK, 0, 10), "ok", "EINVAL")
want("c locks its own", c("ofd", F_OFD_SETLK, fcntl.F_WRLCK, 5, 10), *BUSY, "EINVAL")
a.end()
want("the end of a frees it", c("posix", EX | NB, 0, 0), "ok")
c.end()
