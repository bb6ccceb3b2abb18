// Package faultstest has tests of the built command with both of its doors
// open, over an upstream and a network that fail: nothing that fsync has
// acknowledged is lost, every failure is told to the program that it is of,
// no call hangs, and the same mount, sessions and open files go on afterwards.
//
// scripts/faults runs them for longer, with more seeds; scripts/soak runs the
// one of them that looks for growth.
package faultstest
