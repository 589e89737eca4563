package source

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func ctimeOf(s *syscall.Stat_t) int64 { return s.Ctim.Nano() }

const capabilityXattr = "security.capability"

// capability reads the only extended attribute that layers of a build keep.
func capability(root *os.Root, name string) (map[string]string, error) {
	f, err := openIn(root, name)
	if err != nil {
		return nil, nil //nolint:nilerr // one that cannot be read is an error when it is copied
	}
	defer f.Close()
	buf := make([]byte, 64)
	n, err := unix.Fgetxattr(int(f.Fd()), capabilityXattr, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return map[string]string{capabilityXattr: string(buf[:n])}, nil
}
