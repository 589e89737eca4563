//go:build !unix

package local

import "errors"

var (
	errBrokenPipe = errors.New("broken pipe")
	errNotEmpty   = errors.New("directory not empty")
)
