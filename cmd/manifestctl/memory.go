package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// firstHeap is how large the heap may grow before the first garbage collection: more than most commands ever need.
const firstHeap = 24 << 20

// collectLater puts the first garbage collection off until the heap has firstHeap bytes; from then on it is as always. The
// Go runtime begins at 4 MiB: a build of 50 ms would be looked through three times, on both processors.
func collectLater() {
	if _, set := os.LookupEnv("GOGC"); set {
		return
	}
	const least = 4 << 20 // the heap below which the runtime does nothing, at 100 percent
	usual := debug.SetGCPercent(100 * firstHeap / least)
	first := new([64]byte) // garbage of the first collection
	runtime.AddCleanup(first, func(percent int) { debug.SetGCPercent(percent) }, usual)
}
