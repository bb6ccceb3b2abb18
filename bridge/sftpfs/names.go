package sftpfs

import "sync"

// names are the open files by their names, so that a file that has to be
// opened again is found under the name that it has then.
type names struct {
	mu   sync.Mutex
	open map[string]map[*file]struct{} // guarded by mu
}

func (n *names) init() { n.open = make(map[string]map[*file]struct{}) }

// add notes that fl is open under its name.
func (n *names) add(fl *file) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.putLocked(fl, fl.name)
}

// remove forgets fl, which was closed.
func (n *names) remove(fl *file) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.takeLocked(fl)
}

func (n *names) putLocked(fl *file, name string) {
	fl.name = name
	set := n.open[name]
	if set == nil {
		set = make(map[*file]struct{})
		n.open[name] = set
	}
	set[fl] = struct{}{}
}

func (n *names) takeLocked(fl *file) {
	set := n.open[fl.name]
	delete(set, fl)
	if len(set) == 0 {
		delete(n.open, fl.name)
	}
}

// nameOf returns the present name of fl, and whether it has one.
func (n *names) nameOf(fl *file) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fl.name, !fl.gone
}

// removed tells the files that are open as name that they have none any more.
func (n *names) removed(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for fl := range n.open[name] {
		fl.gone = true
	}
	delete(n.open, name)
}

// renamed gives all that is open as from, or below it, its new name. What is
// open as to has lost it.
func (n *names) renamed(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var moved []*file
	for name, set := range n.open {
		for fl := range set {
			switch {
			case within(name, from):
				moved = append(moved, fl)
			case within(name, to):
				fl.gone = true
				n.takeLocked(fl)
			}
		}
	}
	for _, fl := range moved {
		n.takeLocked(fl)
		n.putLocked(fl, to+fl.name[len(from):])
	}
}

// mayShrink tells the files that are open as name of a size that is being set.
func (n *names) mayShrink(name string, size int64) {
	for _, fl := range n.files(name) {
		fl.mayShrink(size)
	}
}

// resized tells the files that are open as name of a size set by name.
func (n *names) resized(name string, size int64) {
	for _, fl := range n.files(name) {
		fl.resized(size)
	}
}

func (n *names) files(name string) []*file {
	n.mu.Lock()
	defer n.mu.Unlock()
	set := n.open[name]
	if len(set) == 0 {
		return nil
	}
	files := make([]*file, 0, len(set))
	for fl := range set {
		files = append(files, fl)
	}
	return files
}
