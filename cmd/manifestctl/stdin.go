package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// archiveStarts are what tars, plain and compressed, begin with, and where.
var archiveStarts = []struct {
	at    int
	bytes string
}{
	{0, "\x1f\x8b"},
	{0, "BZh"},
	{0, "\xfd7zXZ\x00"},
	{0, "\x28\xb5\x2f\xfd"},
	{257, "ustar"},
}

// isArchive reports whether head is the beginning of one.
func isArchive(head []byte) bool {
	for _, s := range archiveStarts {
		if len(head) >= s.at+len(s.bytes) && bytes.Equal(head[s.at:s.at+len(s.bytes)], []byte(s.bytes)) {
			return true
		}
	}
	return false
}

// keptInput is what was read from elsewhere, in a directory of its own.
type keptInput struct {
	dir     string
	path    string
	archive bool
}

func (s *keptInput) close() error {
	if s == nil || s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// size is how much was read, in bytes.
func (s *keptInput) size() (int64, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// readStdin keeps standard input.
func readStdin(in io.Reader) (*keptInput, error) {
	if in == nil {
		in = bytes.NewReader(nil)
	}
	return keepInput(in, "standard input")
}

// keepInput writes what is read to a file: "context" if it is an archive, else "Dockerfile".
func keepInput(in io.Reader, what string) (_ *keptInput, err error) {
	buffered := bufio.NewReaderSize(in, 1024)
	head, err := buffered.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	s := &keptInput{archive: isArchive(head)}
	if s.dir, err = os.MkdirTemp("", "manifestctl-input-"); err != nil {
		return nil, fmt.Errorf("keeping %s: %w", what, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.path = filepath.Join(s.dir, dockerFile)
	if s.archive {
		s.path = filepath.Join(s.dir, "context")
	}
	f, err := os.Create(s.path)
	if err != nil {
		return nil, fmt.Errorf("keeping %s: %w", what, err)
	}
	_, err = io.Copy(f, buffered)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("keeping %s: %w", what, err)
	}
	return s, nil
}
