// Package bridge is a tree of files with permissions: one tree over one
// backend, shown by several doors (a FUSE mount, an SFTP server) to several
// users at once.
//
// # Terms
//
// A backend stores the files; it decides nothing and remembers nothing. A node
// is one file for life, whatever its names are; its number is the inode number
// that doors show. Names hang on nodes: a name is an entry of a directory. A
// handle is an open file; what it may do was decided when it was opened. An
// avatar is a user with all that is allowed to it, handed out by a realm. A
// caller is an avatar at a door.
//
// There are two levels of operations. Those of Tree work on nodes and have the
// words of the VFS (Lookup, Create, Rename, …); every permission check is in
// them. A View has the words of SFTP and works on paths: it is one avatar's
// Server, and does nothing but walk the path and call one node operation.
//
// # Promises
//
//   - One verdict: who asks for the same gets the same errno at each door, and
//     on a local tree the one that the kernel would give. Of what the kernel
//     may be set to, that are the protections of links and of files in sticky
//     directories, Protected: it refuses by itself at a mount, the tree where
//     a View follows a link, and where a name is opened with O_CREAT or linked.
//   - Read your writes across doors: what one door has answered, the others see.
//   - No silent loss: a write that failed is told by flush, fsync or close.
//   - No hang: what waits for a backend has a deadline, which the backend keeps.
//   - Confinement: no name leads out of an avatar's root or the backend's.
//   - What others change behind our back is seen at the next open, or when the
//     attribute time-out is over; at once where the backend can be watched.
//
// # Ahead of need
//
// From a slow backend, what will be asked for soon is fetched before: the blocks
// that a reader in sequence comes to, the next small files of who reads one after
// the other, the next directories of who lists one after the other. All of it is
// bounded, nobody waits for it who does not want it, and it ends when the pattern
// breaks: when a file is read elsewhere through the same handle, when who goes
// through a directory turns to an entry that is farther away than anything was
// fetched, when the handle is closed. What was sent by then is left to come,
// since a request cannot be taken back, and what waits to be sent is dropped: blocks
// wait for room on the sessions, files for their data when these did not come with
// the open, directories for their entries beyond the first two hundred. Who walks on
// in another part of the tree breaks no pattern here: he may be somebody else.
//
// # Locks, in the order in which they may be taken
//
//	Tree.renameMu    shared by whoever uses a path, until the backend has
//	                 answered; exclusive for Rename, which changes paths
//	Tree.entryMu     a stripe for (directory, name): making, removing and
//	                 looking up the same name come one after the other
//	Node.opMu        changes of attributes, appends and truncations of one node,
//	                 and the end of a handle that is open for writing to it
//	Tree.lateMu      shared while a file that was read ahead is opened by its
//	                 name after all; exclusive while a rename changes names
//	watcher.opMu     a watch of a directory begins or ends
//	Tree.mu          the node table, names, references, what is remembered of
//	                 nodes: memory only, never across a call of a backend or door
//	Subscription.mu  the events of one door
//	lockTable.mu     the advisory locks of all nodes
//
// The first three span a call of the backend: that is their purpose. Reading
// and writing an open file takes none of them. Nothing is told to a door under
// a lock: publishing an event puts it into a set, which the door empties in
// its own time.
package bridge
