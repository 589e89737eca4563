package emulate

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Handler is one line for binfmt_misc's register file.
type Handler struct {
	Arch  string // as in platform.Platform
	Name  string
	Magic []byte
	Mask  []byte
	Path  string // absolute, in the mount namespace of the registration
	Flags string // "FPOC"
}

// maxLine is the kernel's MAX_REGISTER_LENGTH.
const maxLine = 1920

// Line is the handler as register wants it (escaped, at most 1920 bytes). It is "" when it cannot be written: the
// path or the name has a colon or a newline, which the file's format has no escape for, or it is too long.
func (h Handler) Line() string {
	if strings.ContainsAny(h.Name, ":\n\x00/") || strings.ContainsAny(h.Path, ":\n\x00") || h.Name == "" || h.Path == "" {
		return ""
	}
	line := ":" + h.Name + ":M::" + escape(h.Magic) + ":" + escape(h.Mask) + ":" + h.Path + ":" + h.Flags
	if len(line) > maxLine {
		return ""
	}
	return line
}

// escape writes every byte as \xHH, which the kernel undoes for magic and mask.
func escape(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	return s.String()
}

// entry is a handler registered on the host, as binfmt_misc prints it.
type entry struct {
	enabled     bool
	interpreter string
	flags       string
	offset      int
	magic, mask []byte
}

var errEntry = errors.New("not a binfmt_misc entry")

// maxEntry bounds what is read of one entry; the kernel's are below a page.
const maxEntry = 64 << 10

// parseEntry reads one file of /proc/sys/fs/binfmt_misc (Documentation/admin-guide/binfmt-misc.rst).
func parseEntry(r io.Reader) (entry, error) {
	var e entry
	sc := bufio.NewScanner(io.LimitReader(r, maxEntry))
	for first := true; sc.Scan(); first = false {
		line := sc.Text()
		if first {
			if line != "enabled" && line != "disabled" {
				return entry{}, fmt.Errorf("%w: begins with %q", errEntry, line)
			}
			e.enabled = line == "enabled"
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		var err error
		switch key {
		case "interpreter":
			e.interpreter = value
		case "flags:":
			e.flags = value
		case "offset":
			e.offset, err = strconv.Atoi(value)
		case "magic":
			e.magic, err = hex.DecodeString(value)
		case "mask":
			e.mask, err = hex.DecodeString(value)
		}
		if err != nil || e.offset < 0 {
			return entry{}, fmt.Errorf("%w: %q", errEntry, line)
		}
	}
	if err := sc.Err(); err != nil {
		return entry{}, fmt.Errorf("reading a binfmt_misc entry: %w", err)
	}
	if e.interpreter == "" {
		return entry{}, fmt.Errorf("%w: no interpreter", errEntry)
	}
	if e.mask != nil && len(e.mask) != len(e.magic) {
		return entry{}, fmt.Errorf("%w: mask and magic differ in length", errEntry)
	}
	return e, nil
}

// runs reports whether the entry would take programs of m in any rootfs: enabled, with the interpreter opened at
// registration (flag F), and a magic that matches.
func (e entry) runs(m machine) bool {
	if !e.enabled || !strings.Contains(e.flags, "F") || e.offset != 0 || len(e.magic) == 0 {
		return false
	}
	head, _ := m.pattern()
	head = append(head, make([]byte, 128)...)
	mask := e.mask
	if mask == nil {
		mask = make([]byte, len(e.magic))
		for i := range mask {
			mask[i] = 0xff
		}
	}
	return matches(head, e.magic, mask)
}

// hostEntries reads the handlers registered below dir; none is no error.
func hostEntries(dir string) []entry {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil
	}
	if st, err := os.ReadFile(filepath.Join(dir, "status")); err == nil && strings.TrimSpace(string(st)) == "disabled" {
		return nil
	}
	var es []entry
	for _, name := range names {
		if b := filepath.Base(name); b == "register" || b == "status" {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		e, err := parseEntry(f)
		f.Close()
		if err == nil {
			es = append(es, e)
		}
	}
	return es
}
