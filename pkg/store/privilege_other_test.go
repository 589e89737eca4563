//go:build unix && !linux

package store

import "errors"

func withoutPrivilege(func()) error { return errors.ErrUnsupported }
