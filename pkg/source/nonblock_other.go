//go:build !unix

package source

// nonBlocking does nothing where files are never FIFOs.
const nonBlocking = 0
