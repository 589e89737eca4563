package layer

import (
	"fmt"
	"strings"
)

// Whiteouts, by the layer specification of OCI: a file ".wh.NAME" deletes NAME of
// the layers below; ".wh..wh..opq" hides what a directory holds below. Every
// other name that starts with ".wh..wh." is AUFS's own bookkeeping and is ignored.
// The rule holds for each type of member; a name below a ".wh.NAME" is invalid.
const (
	whPrefix = ".wh."
	whAUFS   = ".wh..wh."
	whOpaque = ".wh..wh..opq"
)

type whiteoutKind int

const (
	whNone whiteoutKind = iota
	whDelete
	whHideDir
	whIgnored
)

// parseWhiteout says what the clean name means. For whDelete target is the name
// deleted, for whHideDir the directory hidden.
func parseWhiteout(name string) (kind whiteoutKind, target string, err error) {
	if !strings.Contains(name, whPrefix) {
		return whNone, "", nil
	}
	for start := 0; start < len(name); {
		end, last := strings.IndexByte(name[start:], '/'), false
		if end < 0 {
			end, last = len(name), true
		} else {
			end += start
		}
		c := name[start:end]
		switch {
		case !strings.HasPrefix(c, whPrefix):
		case last && c == whOpaque:
			if start == 0 {
				return whHideDir, ".", nil
			}
			return whHideDir, name[:start-1], nil
		case strings.HasPrefix(c, whAUFS):
			return whIgnored, "", nil
		case !last:
			return whNone, "", fmt.Errorf("%w: %q is a whiteout and cannot be a directory", ErrInvalid, c)
		default:
			rest := c[len(whPrefix):]
			if rest == "" || rest == "." || rest == ".." {
				return whNone, "", fmt.Errorf("%w: whiteout of %q", ErrInvalid, rest)
			}
			return whDelete, name[:start] + rest, nil
		}
		start = end + 1
	}
	return whNone, "", nil
}

// checkNotWhiteout refuses names that a layer cannot hold as files.
func checkNotWhiteout(name string) error {
	kind, _, err := parseWhiteout(name)
	if err != nil {
		return err
	}
	if kind != whNone {
		return fmt.Errorf("%w: names starting with %q mark deletions in a layer", ErrInvalid, whPrefix)
	}
	return nil
}

// whiteoutName is the member that deletes name.
func whiteoutName(name string) string {
	dir, base := splitName(name)
	return joinName(dir, whPrefix+base)
}

// opaqueName is the member that hides the lower contents of dir.
func opaqueName(dir string) string { return joinName(dir, whOpaque) }
