// Package sftpfs is a backend on an upstream SFTP server (version 3, as
// OpenSSH's). It is a client of its own, made for round trips that are long
// and connections that break.
//
// # Terms
//
// A transport is one SSH connection (or one process) to the upstream; package
// sshdial makes them. A session is one SFTP channel of a transport. A handle
// is a file that a session has open, and lives no longer than the session. A
// File may have handles on several sessions, or for a while on none.
//
// # Round trips
//
// Requests that do not need each other's answers go out in one write. Reads
// and writes are cut into what the server takes at once and sent in parallel;
// when a session has as much in flight as half of its channel's window holds,
// further sessions are made, on further connections too, and files are opened
// on them as well. On a long way a second connection is made at the start, and
// all further sessions together when there is need of one. What a session
// cannot carry soon is not sent yet, so that it can still go to another, so that
// small requests do not wait behind it, and so that what is read ahead can be
// given up when nobody wants it any more. A listing has several READDIR in flight. The first of
// them, and the READ of a small file, go out together with what opens the
// directory or file, when the handle that it will get is known before: see
// foresight. What is made is
// looked at in the same write, so that a second request is only sent when the
// upstream's umask has cut something of its mode, or its owner is another. Small
// writes, the change of mode and times behind them and the close go out one behind
// the other on one session, of which a server like OpenSSH's carries out what comes
// in order; when the connection breaks, what is not known to have happened is done
// again, in that order. The
// close of a file that was not written to is not waited for. A session that
// owes an answer for long gets no new requests while there is another.
//
// # Symbolic links
//
// The protocol has no way to open a file or a directory without following
// symbolic links. A link at the end of a name is seen by an LSTAT in front of
// the request; one in the middle by LSTATs of the parents, unless they were
// seen to be directories in the last seconds. What would change something is
// sent after those answers, what only reads in the same write with them. Who
// has write permission on the upstream and swaps a directory for a link just
// then wins that race; the permissions of the account on the upstream are the
// wall behind it.
//
// # Breaks
//
// No call hangs: each has Options.Timeout without a sign of life from the
// upstream. A session on which a request timed out, or which sent garbage, is
// closed. The pool brings connections back; calls wait for that until their
// deadline, and when the upstream has been away for longer than Timeout they
// fail soon. Requests that may be repeated are sent again on the new session.
// The outcome of the others (mkdir, remove, rename, …) is found out by looking.
// A File whose sessions are gone is opened again by its present name, which
// follows renames made through the FS, and must still look the same: version 3
// has no inode numbers, so that is its type, and its mtime or a size that is
// not smaller than before. A file whose name is gone, though it may have
// another (a hard link), or which its mode forbids to open again, is ESTALE
// then. What was written and acknowledged and is not there any more, because
// the upstream's machine went down, is EIO at Close as far as the size shows it.
//
// # What version 3 cannot say
//
// Times are whole seconds from 1970 to 2106; to set others is EINVAL. "Now" is the time of this machine. Owner and group, and the two
// times, can only be set in pairs: the missing half is asked for. There is no
// ctime, no link count, no inode number, and for most failures no reason: it
// is found out by asking further, and is EIO if nothing explains it.
//
// # Locks
//
// None is held during I/O, but for FS.naming, which renames and removals
// share and a File that fails to open again takes for a moment, to let those
// under way come to their end. file.mu comes before names.mu and pool.mu, and
// those before session.mu, and gate.mu is the last.
package sftpfs
