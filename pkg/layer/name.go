package layer

import (
	"fmt"
	"strings"
	"syscall"
)

// maxComponent is what Linux file systems take as one name.
const maxComponent = 255

// cleanName makes the relative, slash separated form of a member's name: "./a",
// "/a" and "a//b/" are "a", "a" and "a/b"; "." is the root. A name that climbs
// above the root is ErrUnsafe.
func cleanName(raw string, maxLen int) (string, error) {
	if len(raw) >= maxLen {
		return "", fmt.Errorf("name of %d bytes: %w: %w", len(raw), ErrLimit, syscall.ENAMETOOLONG)
	}
	if isClean(raw) {
		return raw, nil
	}
	if strings.IndexByte(raw, 0) >= 0 {
		return "", fmt.Errorf("%w: name holds a NUL byte", ErrInvalid)
	}
	parts := make([]string, 0, strings.Count(raw, "/")+1)
	for c := range strings.SplitSeq(raw, "/") {
		switch {
		case c == "" || c == ".":
		case c == "..":
			if len(parts) == 0 {
				return "", fmt.Errorf("%w: it leaves the root", ErrUnsafe)
			}
			parts = parts[:len(parts)-1]
		case len(c) > maxComponent:
			return "", fmt.Errorf("component of %d bytes: %w: %w", len(c), ErrLimit, syscall.ENAMETOOLONG)
		default:
			parts = append(parts, c)
		}
	}
	if len(parts) == 0 {
		return ".", nil
	}
	return strings.Join(parts, "/"), nil
}

// isClean reports whether cleanName would return raw itself.
func isClean(raw string) bool {
	start := 0
	for i := 0; i <= len(raw); i++ {
		if i < len(raw) && raw[i] != '/' {
			if raw[i] == 0 {
				return false
			}
			continue
		}
		n := i - start
		if n == 0 || n > maxComponent || raw[start] == '.' && (n == 1 || n == 2 && raw[start+1] == '.') {
			return false
		}
		start = i + 1
	}
	return true
}

// cleanLink makes the clean name of a hard link's target, which counts from the
// root: climbing stops there, as under chroot.
func cleanLink(raw string, maxLen int) (string, error) {
	if !strings.Contains(raw, "..") {
		return cleanName(raw, maxLen)
	}
	if len(raw) >= maxLen {
		return "", fmt.Errorf("link of %d bytes: %w: %w", len(raw), ErrLimit, syscall.ENAMETOOLONG)
	}
	return cleanName(clampDots(raw), maxLen)
}

// clampDots resolves ".." by name, stopping at the root.
func clampDots(name string) string {
	var parts []string
	for c := range strings.SplitSeq(name, "/") {
		switch c {
		case "", ".":
		case "..":
			if len(parts) > 0 {
				parts = parts[:len(parts)-1]
			}
		default:
			parts = append(parts, c)
		}
	}
	if len(parts) == 0 {
		return "."
	}
	return strings.Join(parts, "/")
}

// splitName splits a clean name into its parent ("." at the top) and its last component.
func splitName(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ".", name
	}
	return name[:i], name[i+1:]
}

// joinName joins a clean directory and a component.
func joinName(dir, base string) string {
	if dir == "." || dir == "" {
		return base
	}
	return dir + "/" + base
}

// under reports whether name is dir or below it.
func under(name, dir string) bool {
	return dir == "." || name == dir || len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}
