//go:build !unix

package dockerfile

// nonBlocking is not needed where there are no FIFOs.
const nonBlocking = 0
