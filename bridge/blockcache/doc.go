// Package blockcache holds the content of files of a slow backend in memory:
// what was read, what will probably be read next, and what was written and is
// not yet sent.
//
// A [Cache] is the memory of the whole process, a [File] the content of one
// file, shared by everybody who has it open. A File has no backend handle of
// its own: whoever reads or writes brings a [Source], through which the File
// fetches and sends.
//
// Terms:
//   - A block is BlockSize bytes of a file at a multiple of BlockSize; a
//     cached block knows its first n bytes. Blocks are clean or carry written
//     data too: a write updates the blocks that are cached.
//     Those that came together, by a fetch or as an extent, stay in one buffer,
//     which counts until the last of them is gone.
//   - An extent is written data, anywhere in the file. It is dirty until it is
//     handed to its source, then in flight, and gone when the source has it.
//     Dirty extents do not overlap, nor do those in flight; a dirty one that
//     overlaps one in flight is newer and waits for it.
//   - A fetch is one read of a source. What is written while it runs is put
//     over what it brings, so that it never brings back old data.
//   - A stream is a place in the file where somebody reads in sequence. It has
//     a window, the distance to which blocks are fetched ahead of the reader,
//     and the window grows for as long as the reader has to wait. When a source
//     is read elsewhere than its streams are, what was to be fetched ahead
//     through it and waits to be sent is dropped; what was sent is left to come.
//
// A reader that reads in no sequence gets exactly the range it asks for, and
// the cache keeps nothing of it.
//
// Memory: blocks give way to whatever is needed, least recently used first.
// Extents hold at most a quarter of the limit, and fetches under way another.
// Writers wait for room, as the extents of every file are always being sent;
// readers never do: a read that finds no room for blocks goes straight from
// the source into the reader's buffer.
//
// Locks, in this order: File.mu, Cache.mu. No lock of a second File is taken
// under the first; evicting a block locks its File, so it is done with no lock
// held. No source is called under a lock.
package blockcache
