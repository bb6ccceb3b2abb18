// Package doorstest has tests of the built command with both of its doors
// open: the same user doing the same thing gets the same answer at the mount,
// through SFTP and, on a directory of its own, from the kernel; and what was
// done at one door is seen at the other.
package doorstest
