//go:build !linux

package serve_test

import "errors"

func smallDisk(string, string) error { return errors.ErrUnsupported }
