// Package hostiletest has tests of the built command against parties that mean
// harm: clients that break the protocols, and upstream servers that do. What
// each may do is in the threat model in the README.
package hostiletest
