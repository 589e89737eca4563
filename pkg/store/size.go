package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// The file "size" says what the store took when it was last looked through, "TOTAL UNIXTIME\n", and then what each task
// added, "+BYTES\n". So a task need not look through all of the store to see that it is small. It is an estimate: tasks
// that were killed and steps that fill cache mounts are not in it, and collections make it smaller only at the next look.
const (
	maxGrowths  = 64             // lines, after which the store is looked through again
	maxSizeTime = 24 * time.Hour // likewise
)

// Grow notes that a tree of n bytes came into SnapshotDir.
func (s *Store) Grow(n int64) { s.grown.Add(n) }

// Grown is how many bytes of blobs and trees came through s.
func (s *Store) Grown() int64 { return s.grown.Load() }

// surelyBelow adds grown bytes to the estimate and reports whether the store is known to take at most keep bytes.
func (s *Store) surelyBelow(keep, grown int64) bool {
	total, lines, ok := s.estimate()
	if !ok || lines >= maxGrowths || total+grown > keep {
		return false
	}
	f, err := os.OpenFile(s.path(sizeFile), os.O_WRONLY|os.O_APPEND, fileMode)
	if err != nil {
		return false
	}
	_, err = fmt.Fprintf(f, "+%d\n", grown)
	return f.Close() == nil && err == nil
}

// estimate reads the file; !ok: there is none to go by.
func (s *Store) estimate() (total int64, lines int, ok bool) {
	text, err := readSmall(s.path(sizeFile))
	if err != nil {
		return 0, 0, false
	}
	lineReader := bufio.NewScanner(bytes.NewReader(text))
	for ; lineReader.Scan(); lines++ {
		size, when, first := strings.Cut(lineReader.Text(), " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 || first != (lines == 0) {
			return 0, 0, false
		}
		if first {
			at, err := strconv.ParseInt(when, 10, 64)
			if age := time.Since(time.Unix(at, 0)); err != nil || age > maxSizeTime || age < -maxSizeTime {
				return 0, 0, false
			}
		}
		total += n
	}
	return total, lines, lines > 0
}

// measure looks through the store and writes the estimate anew.
func (s *Store) measure(ctx context.Context) (total int64, err error) {
	entries, err := s.cacheEntries()
	if err != nil {
		return 0, err
	}
	sizes, err := s.blobSizes(ctx)
	if err != nil {
		return 0, err
	}
	for _, n := range sizes {
		total += n
	}
	for _, e := range entries {
		total += e.Size
	}
	return total, s.replaceFile(sizeFile, fmt.Appendf(nil, "%d %d\n", total, time.Now().Unix()), false)
}
