// Package e2e holds tests of the whole program: the compiled binary, run by root
// and by ordinary users with and without subuid ranges, against Debian's registry
// and the peers that read what it makes. It has no code of its own.
package e2e
