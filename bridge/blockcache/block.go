package blockcache

// A block is BlockSize bytes of a file, or as many of them as are known.
type block struct {
	file *File
	idx  int64 // the offset in the file in units of BlockSize

	buf *buffer // of which it holds one use
	p   []byte  // the room that it has in buf
	n   int     // the bytes known, from the start of the block
	// guarded by file.mu

	prev, next *block // in the ring Cache.lru, or nil
	// guarded by Cache.mu
}

// end returns the offset in the file at which the block's knowledge ends. The
// caller holds file.mu.
func (b *block) end() int64 { return b.idx*BlockSize + int64(b.n) }

// unlink takes b out of the ring. The caller holds Cache.mu.
func (b *block) unlink() {
	b.prev.next, b.next.prev = b.next, b.prev
	b.prev, b.next = nil, nil
}

// link puts b into the ring as the newest. The caller holds Cache.mu.
func (c *Cache) link(b *block) {
	b.prev, b.next = &c.lru, c.lru.next
	b.prev.next, b.next.prev = b, b
}

// touch makes b the newest, unless it is being evicted.
func (c *Cache) touch(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.next == nil || c.lru.next == b {
		return
	}
	b.unlink()
	c.link(b)
}

// drop frees b, which its file has just forgotten.
func (c *Cache) drop(b *block) {
	c.mu.Lock()
	if b.next != nil {
		b.unlink()
	}
	c.mu.Unlock()
	c.put(b.buf)
}

// evict forgets b, which the cache has taken out of the ring. The caller holds
// no lock.
func (f *File) evict(b *block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blocks[b.idx] == b {
		f.dropLocked(b)
	}
}

// dropLocked forgets b. The caller holds f.mu.
func (f *File) dropLocked(b *block) {
	delete(f.blocks, b.idx)
	f.cache.drop(b)
}

// dropRangeLocked forgets the blocks that overlap [off, end). The caller holds
// f.mu.
func (f *File) dropRangeLocked(off, end int64) {
	for idx := off / BlockSize; idx*BlockSize < end; idx++ {
		if b := f.blocks[idx]; b != nil {
			f.dropLocked(b)
		}
	}
}

// storeLocked makes n bytes of buf, from at on, the content of the block idx,
// which shares buf with others. The caller holds f.mu, and has seen that the
// block is not there.
func (f *File) storeLocked(idx int64, buf *buffer, at, n int) {
	b := &block{file: f, idx: idx, buf: buf, p: buf.b[at:min(at+BlockSize, len(buf.b))], n: n}
	f.blocks[idx] = b
	f.cache.mu.Lock()
	buf.uses++
	f.cache.link(b)
	f.cache.mu.Unlock()
}

// updateLocked puts written data into the blocks that are cached. A block that
// would have a gap of unknown bytes, or has no room, is dropped. The caller
// holds f.mu.
func (f *File) updateLocked(p []byte, off int64) {
	if len(f.blocks) == 0 {
		return
	}
	for len(p) > 0 {
		at := int(off % BlockSize)
		n := min(len(p), BlockSize-at)
		if b := f.blocks[off/BlockSize]; b != nil {
			if at > b.n || at+n > len(b.p) {
				f.dropLocked(b)
			} else {
				copy(b.p[at:], p[:n])
				b.n = max(b.n, at+n)
			}
		}
		p, off = p[n:], off+int64(n)
	}
}
