package faultstest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

const (
	slotSize   = 12 << 10
	slotCount  = 32
	syncsEvery = 6 // writes from one fsync to the next, about
)

// A writer keeps a journal of what it writes to a file, slot by slot, and of
// what it was told.
type writer struct {
	r     *rig
	name  string
	rnd   *rand.Rand
	door  door
	f     file
	slots [slotCount]slot
	gen   uint32
	pause time.Duration // between calls

	calls, syncs, failures int
	slowest                time.Duration
	errs                   map[string]int
}

// A slot is what is known of a part of the file.
type slot struct {
	acked   uint32 // the generation that fsync or close has acknowledged
	written uint32 // a later one that was written, but is not acknowledged; 0 for none
	unknown bool   // something failed since: it may hold anything
}

func newWriter(r *rig, name string, d door, salt uint64) *writer {
	return &writer{
		r: r, name: name, door: d, rnd: rand.New(rand.NewPCG(*seed, salt)),
		pause: 4 * time.Millisecond, errs: make(map[string]int),
	}
}

// block is the content of a slot, with a checksum at its end.
func (w *writer) block(slot int, gen uint32) []byte {
	b := make([]byte, slotSize)
	pattern := rand.New(rand.NewPCG(uint64(gen), uint64(slot)))
	n := copy(b, fmt.Sprintf("%s %d %d ", w.name, slot, gen))
	for ; n+8 < slotSize-4; n += 8 {
		binary.LittleEndian.PutUint64(b[n:], pattern.Uint64())
	}
	binary.LittleEndian.PutUint32(b[slotSize-4:], crc32.ChecksumIEEE(b[:slotSize-4]))
	return b
}

// call makes a call and notes what comes of it. A call that hangs is the end.
func (w *writer) call(what string, f func() error) error {
	began := time.Now()
	err := inTime(f)
	w.calls++
	w.slowest = max(w.slowest, time.Since(began))
	if err != nil {
		w.failures++
		w.errs[what+": "+errText(err)]++
	}
	if errors.Is(err, errLate) {
		return fmt.Errorf("%s of %s: %w", what, w.name, err)
	}
	return err
}

func errText(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// open opens the file, if it is not.
func (w *writer) open() error {
	if w.f != nil {
		return nil
	}
	return w.call("open", func() error {
		f, err := w.door.open(w.name, os.O_RDWR|os.O_CREATE)
		if err == nil {
			w.f = f
		}
		return err
	})
}

// step makes one call, or two. The error is one that there must not be.
func (w *writer) step() error {
	time.Sleep(w.pause)
	if err := w.open(); err != nil {
		return late(err)
	}
	switch n := w.rnd.IntN(4 * syncsEvery); {
	case n < 4:
		return w.sync()
	case n == 4:
		return w.close()
	case n < 8:
		return w.readBack()
	}
	return w.write(w.rnd.IntN(slotCount))
}

func late(err error) error {
	if errors.Is(err, errLate) {
		return err
	}
	return nil
}

func (w *writer) write(i int) error {
	w.gen++
	gen := w.gen
	err := w.call("write", func() error {
		_, err := w.f.WriteAt(w.block(i, gen), int64(i)*slotSize)
		return err
	})
	s := &w.slots[i]
	s.written = gen
	if err != nil {
		s.unknown = true
		w.doubt() // the error may be that of an earlier write
	}
	return late(err)
}

// doubt notes that what is not acknowledged may be lost.
func (w *writer) doubt() {
	for i := range w.slots {
		if w.slots[i].written != 0 {
			w.slots[i].unknown = true
		}
	}
}

// sync has what was written acknowledged, and looks whether the upstream has
// it at that moment.
func (w *writer) sync() error {
	err := w.call("fsync", w.f.Sync)
	w.syncs++
	return w.settled(err)
}

// close closes the file; the next step opens it again.
func (w *writer) close() error {
	f := w.f
	w.f = nil
	return w.settled(w.call("close", f.Close))
}

// settled takes in what fsync or close said.
func (w *writer) settled(err error) error {
	if err != nil {
		w.doubt()
		return late(err)
	}
	for i := range w.slots {
		s := &w.slots[i]
		if s.written != 0 && !s.unknown {
			s.acked, s.written = s.written, 0
		}
	}
	return w.check(upstreamOf(w.r), "upstream")
}

// check compares what the door d shows of the file with the journal.
func (w *writer) check(d door, where string) error {
	f, err := d.open(w.name, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	defer f.Close()
	for i := range w.slots {
		if err := w.checkSlot(f, i); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	return nil
}

func (w *writer) checkSlot(f io.ReaderAt, i int) error {
	s := w.slots[i]
	if s.acked == 0 || s.unknown || s.written != 0 {
		return nil
	}
	got := make([]byte, slotSize)
	n, err := f.ReadAt(got, int64(i)*slotSize)
	if err != nil && (err != io.EOF || n < slotSize) {
		return fmt.Errorf("%s, slot %d: %d bytes, %w", w.name, i, n, err)
	}
	if !bytes.Equal(got, w.block(i, s.acked)) {
		return fmt.Errorf("%s, slot %d: acknowledged was %d, and it holds %q…", w.name, i, s.acked, got[:40])
	}
	return nil
}

// readBack reads a slot through the door: what was written last is what is
// read, or an error.
func (w *writer) readBack() error {
	i := w.rnd.IntN(slotCount)
	s := w.slots[i]
	want := max(s.acked, s.written)
	if want == 0 || s.unknown {
		return nil
	}
	got := make([]byte, slotSize)
	err := w.call("read", func() error {
		n, err := w.f.ReadAt(got, int64(i)*slotSize)
		if err == io.EOF && n == slotSize {
			err = nil
		}
		return err
	})
	if err != nil {
		if errors.Is(err, io.EOF) { // no error of the device, so the file is shorter
			return w.lostOrTold(i, "is beyond the end")
		}
		return late(err)
	}
	if !bytes.Equal(got, w.block(i, want)) {
		return w.lostOrTold(i, fmt.Sprintf("holds %q…", got[:40]))
	}
	return nil
}

// lostOrTold is the verdict on a slot that does not read as it was written:
// what was acknowledged must be there, what was not may have failed already,
// of which fsync has to tell.
func (w *writer) lostOrTold(i int, what string) error {
	if s := w.slots[i]; s.written == 0 {
		return fmt.Errorf("%s, slot %d: acknowledged was %d, and through the door it %s", w.name, i, s.acked, what)
	}
	if err := w.call("fsync", w.f.Sync); err == nil {
		return fmt.Errorf("%s, slot %d: written was %d, it %s, and fsync tells of no error", w.name, i, w.slots[i].written, what)
	}
	w.doubt()
	return nil
}

// finish writes again what is in doubt, through the file that is open, until
// all of it is acknowledged.
func (w *writer) finish() error {
	deadline := time.Now().Add(slack)
	for {
		err := w.rewrite()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || errors.Is(err, errLate) {
			return fmt.Errorf("%s does not recover: %w", w.name, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *writer) rewrite() error {
	if err := w.open(); err != nil {
		return err
	}
	for i := range w.slots {
		if s := &w.slots[i]; s.unknown || s.written != 0 {
			w.gen++
			if _, err := w.f.WriteAt(w.block(i, w.gen), int64(i)*slotSize); err != nil {
				return err
			}
			s.written = w.gen
		}
	}
	if err := inTime(w.f.Sync); err != nil {
		return err
	}
	for i := range w.slots {
		if s := &w.slots[i]; s.written != 0 {
			*s = slot{acked: s.written}
		}
	}
	return w.check(upstreamOf(w.r), "upstream")
}
