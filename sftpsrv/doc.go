// Package sftpsrv is the SFTP door: it serves any bridge.Server to the clients
// of the SSH File Transfer Protocol, version 3, as OpenSSH's sftp-server does,
// with its eleven extensions.
//
// There are two layers. [Serve] serves one session on any stream of bytes: the
// channel of an SSH subsystem, or standard input and output. [Server] is an
// SSH server that offers nothing but such sessions; it authenticates users by
// public keys, certificates and passwords, and asks its Config for the
// bridge.Server of each.
//
// # Order
//
// Answers leave in the order of the requests. A session that is not Parallel
// carries requests out in that order too, in one goroutine. A Parallel one
// lets requests wait for a slow server side by side, as long as a client that
// had not waited for any answer could not tell: the table in order.go says
// which request waits for which earlier ones.
//
// Requests for attributes that have arrived together, one after the other, are
// put to a bridge.AttrBatch where the server has one: their directory is looked
// at once. It ends before the session does or reads anything else.
//
// # What a client is told
//
// A failed request is answered with OpenSSH's status code for its errno, and
// for a message the text of that errno. No text of a Go error, and so no path
// of the backend, reaches a client.
//
// # Bounds
//
// Packets are up to 256 KiB, as limits@openssh.com says; a longer one ends the
// session. The handles of a session, the bytes that its requests in flight may
// hold, the sessions of a connection and the connections of the server are
// bounded. A client that sends more is not read from until there is room. An
// idle connection has small buffers.
//
// Connections that have not logged in are bounded in all and by address, and
// end after the login grace. An address that keeps failing to log in, and a
// network of such, is refused for a while, longer each time: see penalties.
// The threat model in the README lists what is held against whom, with the tests.
package sftpsrv
