//go:build !linux

package output

import (
	"errors"
	"os"
	"time"
)

func makeFifo(*os.Root, string) error { return errors.ErrUnsupported }

func setLinkTime(*os.Root, string, time.Time) error { return errors.ErrUnsupported }
