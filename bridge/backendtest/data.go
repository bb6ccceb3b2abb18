package backendtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"sftpbridge/bridge"
)

var dataTests = []test{
	{"ReadAtEnd", testReadAtEnd},
	{"Large", testLarge},
	{"Overwrite", testOverwrite},
	{"Holes", testHoles},
	{"HugeOffset", testHugeOffset},
	{"Append", testAppend},
	{"ParallelAppend", testParallelAppend},
	{"ParallelWrite", testParallelWrite},
	{"ReadWhileWriting", testReadWhileWriting},
	{"SeenAtOnce", testSeenAtOnce},
	{"Sync", testSync},
}

func testReadAtEnd(e *env) {
	e.put("f", "0123456789")
	f := e.open("f", rdonly)
	for _, test := range []struct {
		off  int64
		n    int
		want string
		eof  bool
	}{
		{0, 4, "0123", false},
		{3, 5, "34567", false},
		{8, 4, "89", true},
		{10, 1, "", true},
		{11, 5, "", true},
		{1 << 40, 5, "", true},
		{0, 100_000, "0123456789", true},
	} {
		p := bytes.Repeat([]byte{'x'}, test.n)
		n, err := f.ReadAt(e.ctx, p, test.off)
		if string(p[:n]) != test.want || test.eof != (err == io.EOF) || !test.eof && err != nil {
			e.Errorf("ReadAt of %d at %d = %q, %v; want %q, EOF %v", test.n, test.off, p[:n], err, test.want, test.eof)
		}
	}
	p := make([]byte, 10)
	if n, err := f.ReadAt(e.ctx, p, 0); n != 10 || err != nil && err != io.EOF {
		e.Errorf("ReadAt of all there is = %d, %v", n, err)
	}
	if n, err := f.ReadAt(e.ctx, nil, 3); n != 0 || err != nil {
		e.Errorf("ReadAt of nothing = %d, %v", n, err)
	}
	if n, err := f.ReadAt(e.ctx, nil, 100); n != 0 || err != nil && err != io.EOF {
		e.Errorf("ReadAt of nothing past the end = %d, %v", n, err)
	}
	e.create("empty", mode(0o644))
	if n, err := e.open("empty", rdonly).ReadAt(e.ctx, p, 0); n != 0 || err != io.EOF {
		e.Errorf("ReadAt of an empty file = %d, %v; want EOF", n, err)
	}
}

// noise returns n bytes of which no piece is like another.
func noise(seed uint64, n int) string {
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	p := make([]byte, n)
	src.Read(p)
	return string(p)
}

func testLarge(e *env) {
	want := noise(1, 5<<20+3)
	f := e.open("f", rdwr|creat)
	e.writeAt(f, want[1000:], 1000)
	e.writeAt(f, want[:1000], 0)
	if a := e.attr(f); a.Size != int64(len(want)) {
		e.Errorf("size %d; want %d", a.Size, len(want))
	}
	for _, piece := range []struct{ off, n int }{
		{0, len(want)}, {1, len(want) - 1}, {4095, 1 << 20}, {262_143, 3}, {65_537, 3<<20 + 5},
	} {
		p := make([]byte, piece.n)
		n, err := f.ReadAt(e.ctx, p, int64(piece.off))
		if n != piece.n || err != nil && err != io.EOF {
			e.Fatalf("ReadAt of %d at %d = %d, %v", piece.n, piece.off, n, err)
		}
		if string(p) != want[piece.off:piece.off+piece.n] {
			e.Errorf("ReadAt of %d at %d: wrong bytes", piece.n, piece.off)
		}
	}
	p := make([]byte, 1<<20)
	n, err := f.ReadAt(e.ctx, p, int64(len(want)-300_001))
	if n != 300_001 || err != io.EOF || string(p[:n]) != want[len(want)-n:] {
		e.Errorf("ReadAt over the end = %d, %v; want 300001 and EOF", n, err)
	}
}

func testOverwrite(e *env) {
	e.put("f", strings.Repeat("a", 100_000))
	f := e.open("f", rdwr)
	e.writeAt(f, strings.Repeat("b", 50_000), 25_000)
	e.writeAt(f, "c", 99_999)
	e.writeAt(f, "dd", 99_999)
	if n, err := f.WriteAt(e.ctx, nil, 5); n != 0 || err != nil {
		e.Errorf("WriteAt of nothing = %d, %v", n, err)
	}
	e.wantContent("f", strings.Repeat("a", 25_000)+strings.Repeat("b", 50_000)+
		strings.Repeat("a", 24_999)+"dd")
}

func testHoles(e *env) {
	f := e.open("f", rdwr|creat)
	e.writeAt(f, "end", 300_000)
	e.writeAt(f, "middle", 150_001)
	want := strings.Repeat("\x00", 150_001) + "middle" + strings.Repeat("\x00", 149_993) + "end"
	e.wantContent("f", want)
	e.need(f.SetAttr(e.ctx, size(150_003)), "shrink")
	e.need(f.SetAttr(e.ctx, size(200_000)), "grow")
	e.wantContent("f", want[:150_003]+strings.Repeat("\x00", 49_997))
}

func testHugeOffset(e *env) {
	const far = 1<<40 + 5
	f := e.open("f", rdwr|creat)
	e.writeAt(f, "far", far)
	a := e.attr(f)
	if a.Size != far+3 {
		e.Errorf("size %d; want %d", a.Size, int64(far+3))
	}
	if a.Blocks > 1<<20 {
		e.Errorf("%d blocks in use for three bytes", a.Blocks)
	}
	p := make([]byte, 8)
	n, err := f.ReadAt(e.ctx, p, far-2)
	if string(p[:n]) != "\x00\x00far" || err != io.EOF {
		e.Errorf("ReadAt = %q, %v", p[:n], err)
	}
	e.need(f.SetAttr(e.ctx, size(1<<41)), "grow")
	if n, err := f.ReadAt(e.ctx, p, 1<<41-8); n != 8 || err != nil && err != io.EOF || string(p) != strings.Repeat("\x00", 8) {
		e.Errorf("ReadAt of a hole = %q, %v", p[:n], err)
	}
}

func testAppend(e *env) {
	e.put("f", "one")
	f := e.open("f", wronly|apnd)
	e.writeAt(f, " two", 0)
	g := e.open("f", rdwr)
	e.writeAt(g, "ONE", 0)
	e.writeAt(g, "!!", 9)
	e.writeAt(f, " three", 1)
	e.wantContent("f", "ONE two\x00\x00!! three")
	n := e.open("new", rdwr|creat|apnd)
	e.writeAt(n, "a", 100)
	e.writeAt(n, "b", 100)
	if got := e.content(n); got != "ab" {
		e.Errorf("content is %q; want ab", got)
	}
}

// Records that several files append at once are all there, each in one piece.
func testParallelAppend(e *env) {
	const writers, records = 8, 40
	files := []bridge.File{e.open("f", wronly|creat|apnd), e.open("f", wronly|apnd), e.open("f", rdwr|apnd)}
	record := func(writer, i int) string {
		return fmt.Sprintf("<%d %d %s>", writer, i, strings.Repeat("x", writer*97%500))
	}
	errs := race(writers, func(w int) error {
		for i := range records {
			if _, err := files[w%len(files)].WriteAt(e.ctx, []byte(record(w, i)), 0); err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		e.need(err, "append")
	}
	got := e.get("f")
	total := 0
	for w := range writers {
		from := 0
		for i := range records {
			r := record(w, i)
			total += len(r)
			at := strings.Index(got[from:], r)
			if at < 0 {
				e.Fatalf("record %d of writer %d is lost, in pieces or out of order", i, w)
			}
			from += at + len(r)
		}
	}
	if len(got) != total {
		e.Errorf("%d bytes; want %d", len(got), total)
	}
}

// Writers of pieces side by side do not disturb each other.
func testParallelWrite(e *env) {
	const writers, pieces, piece = 6, 12, 10_007
	f, g := e.open("f", rdwr|creat), e.open("f", wronly)
	want := noise(2, writers*pieces*piece)
	errs := race(writers, func(w int) error {
		for i := range pieces {
			off := (i*writers + w) * piece
			to := f
			if i%2 == 1 {
				to = g
			}
			if _, err := to.WriteAt(e.ctx, []byte(want[off:off+piece]), int64(off)); err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		e.need(err, "write")
	}
	e.wantContent("f", want)
}

// Whoever reads while the file grows sees what was written before.
func testReadWhileWriting(e *env) {
	const pieces, piece = 60, 5_003
	want := noise(3, pieces*piece)
	f, r := e.open("f", rdwr|creat), e.open("f", rdonly)
	var written atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	for i := range 3 {
		wg.Go(func() {
			file := []bridge.File{f, r, r}[i]
			errs <- readGrowing(ctx, file, want, &written)
		})
	}
	for i := range pieces {
		e.writeAt(f, want[i*piece:(i+1)*piece], int64(i*piece))
		written.Store(int64((i + 1) * piece))
	}
	wg.Wait()
	for range 3 {
		if err := <-errs; err != nil {
			e.Error(err)
		}
	}
}

// readGrowing reads f until it has all of want, or ctx ends.
func readGrowing(ctx context.Context, f bridge.File, want string, written *atomic.Int64) error {
	p := make([]byte, len(want))
	for ctx.Err() == nil {
		have := written.Load()
		n, err := f.ReadAt(ctx, p, 0)
		switch {
		case err != nil && err != io.EOF:
			return fmt.Errorf("read while writing: %w", err)
		case n < len(p) && err == nil:
			return fmt.Errorf("read %d of %d bytes without an error", n, len(p))
		case int64(n) < have:
			return fmt.Errorf("read %d bytes when %d were written", n, have)
		case string(p[:have]) != want[:have]:
			return fmt.Errorf("read other bytes than were written")
		case n == len(want):
			return nil
		}
	}
	return ctx.Err()
}

// A backend caches nothing: what was written is there for others.
func testSeenAtOnce(e *env) {
	f := e.open("f", rdwr|creat)
	r := e.open("f", rdonly)
	for i, word := range []string{"one", "three", "eleven"} {
		e.writeAt(f, word, 0)
		if a := e.lstat("f"); a.Size != int64(len(word)) {
			e.Errorf("write %d: size by name is %d; want %d", i, a.Size, len(word))
		}
		if got := e.content(r); got != word {
			e.Errorf("write %d: another open file has %q; want %q", i, got, word)
		}
	}
	e.need(e.b.SetAttr(e.ctx, "f", size(2)), "truncate by name")
	if got := e.content(f); got != "el" {
		e.Errorf("after truncation by name the open file has %q", got)
	}
}

func testSync(e *env) {
	f := e.open("f", rdwr|creat)
	e.need(f.Sync(e.ctx), "Sync of an empty file")
	e.writeAt(f, "content", 0)
	e.need(f.Sync(e.ctx), "Sync")
	e.need(e.open("f", rdonly).Sync(e.ctx), "Sync of a file open for reading")
}
