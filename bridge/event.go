package bridge

// An Event tells a door what has changed since it last asked.
type Event struct {
	Node *Node
	Kind EventKind
	// Name is the name in the directory Node that came, went or now means
	// another file, for EntryChanged and EntryGone.
	Name string
	// Child is the node that Name meant until now, for EntryGone; it may be nil.
	Child *Node
}

// An EventKind is what an Event is about.
type EventKind uint8

// The kinds of events.
const (
	AttrChanged    EventKind = iota // attributes of Node
	ContentChanged                  // data and attributes of Node
	EntryChanged                    // Name in Node: it came, or means another file
	EntryGone                       // Name in Node was removed
)
