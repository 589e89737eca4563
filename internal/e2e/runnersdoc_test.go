//go:build linux

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	runnersDoc = "../../docs/runners.md"
	runnersEnv = "MANIFESTCTL_RUNNERS" // "update", or anything to compare with what is there
)

const runnersHead = `# Runners

Written by ` + "`make runners`" + ` (TestRunners in internal/e2e), which builds on every machine of these tables; CI builds the first table again and
compares. Each cell is an ordinary user that the test makes, without any right on the host. It builds a spec and a Dockerfile for linux/amd64 and
linux/arm64 on an amd64 machine: files of other owners and modes, a script that a program starts, a named pipe, a step as another user.

- *subuid ranges*: the user has lines in /etc/subuid and /etc/subgid, and newuidmap is installed; or has none.
- *host's handler*: binfmt_misc has qemu-aarch64 with the flag F; or is empty. So that the host's own is never touched, a user namespace with all ids as they
  are and a binfmt_misc instance of its own is around each cell: the kernel asks it, as it asks the host's, where a namespace below has none.
- *own binfmt*: an instance of one's own can be filled; or a seccomp filter that the test installs refuses to open its register file. A filter
  sees no names, so it goes by the flags of the open.
- *masked /proc*: something is mounted below /proc, as container runtimes do, so that no new one can be mounted.

`

// document compares docs/runners.md with what came of the cells, or writes it.
func (m *matrix) document(t *testing.T) {
	t.Helper()
	ours := m.oursText()
	if !m.long {
		doc, err := os.ReadFile(runnersDoc)
		require.NoError(t, err)
		assert.Contains(t, string(doc), ours, "make runners writes docs/runners.md")
		return
	}
	text := ours + m.peersText(t)
	if os.Getenv(runnersEnv) == "update" {
		require.NoError(t, os.WriteFile(runnersDoc, []byte(text), 0o644))
		return
	}
	doc, err := os.ReadFile(runnersDoc)
	require.NoError(t, err)
	assert.Equal(t, text, string(doc), "make runners writes docs/runners.md")
}

func (m *matrix) oursText() string {
	var b strings.Builder
	b.WriteString(runnersHead)
	b.WriteString("## manifestctl\n\nIn every cell both builds end well, and the index has the digest that it has when root builds. The cell says by what rungs: owners by subuid\n" +
		"*ranges* or by the *supervisor* of a single uid, emulation by an own *binfmt* instance or by *ptrace*.\n\n")
	b.WriteString(table(m.ours, []bool{true, false}))
	b.WriteString("\nExceptions: none.\n\nWithout an emulator in the host's $PATH:\n\n")
	fmt.Fprintf(&b, "- with the host's handler: %s\n- without: %s\n\n", m.none[0], m.none[1])
	return b.String()
}

// peersText is the table of buildah, with its reasons below.
func (m *matrix) peersText(t *testing.T) string {
	var reasons []string
	cells := map[runner]string{}
	for _, r := range runners() {
		text, tried := m.peers[r], r.Binfmt
		if !tried {
			continue
		}
		if text != "ok" {
			n := 0
			for n < len(reasons) && reasons[n] != text {
				n++
			}
			if n == len(reasons) {
				reasons = append(reasons, text)
			}
			text = fmt.Sprintf("no [%d]", n+1)
		}
		cells[r] = text
	}
	var b strings.Builder
	version := strings.Fields(ok(t, root(t).other(nil, tool(t, "buildah"), "--version")).stdout)
	fmt.Fprintf(&b, "## buildah %s\n\nThe same Dockerfile on the same runners (`buildah build --isolation chroot --storage-driver vfs --platform linux/amd64,linux/arm64`).\n"+
		"It registers no handlers, so the cells with the filter are left out.\n\n", version[2])
	b.WriteString(table(cells, []bool{true}))
	b.WriteString("\n")
	for i, r := range reasons {
		fmt.Fprintf(&b, "%d. `%s`\n", i+1, r)
	}
	return b.String()
}

// table has a line for each machine and a column for each place.
func table(cells map[runner]string, binfmt []bool) string {
	yes := map[bool]string{true: "yes", false: "no"}
	var b strings.Builder
	b.WriteString("| subuid ranges | host's handler | own binfmt | " + strings.Join(places, " | ") + " |\n|" + strings.Repeat("---|", 3+len(places)) + "\n")
	for _, owners := range []string{"ranges", "none"} {
		for _, host := range []bool{true, false} {
			for _, own := range binfmt {
				fmt.Fprintf(&b, "| %s | %s | %s |", yes[owners == "ranges"], yes[host], yes[own])
				for _, place := range places {
					fmt.Fprintf(&b, " %s |", cells[runner{Owners: owners, Host: host, Binfmt: own, Place: place}])
				}
				b.WriteString("\n")
			}
		}
	}
	return b.String()
}

var (
	startError = regexp.MustCompile(`fork/exec [^ ]+: exec format error`)
	logError   = regexp.MustCompile(`level=error msg="((?:[^"\\]|\\.)*)"`)
	numbers    = regexp.MustCompile(`/proc/[0-9]+/`)
)

// why is the cause among what buildah says, without what is different every time.
func why(stderr string) string {
	stderr = strings.TrimSpace(stderr)
	if s := startError.FindString(stderr); s != "" {
		return s
	}
	if s := logError.FindStringSubmatch(stderr); s != nil {
		return numbers.ReplaceAllString(strings.ReplaceAll(s[1], `\"`, `"`), "/proc/PID/")
	}
	if i := strings.LastIndex(stderr, "lchown "); i >= 0 {
		first, _, _ := strings.Cut(stderr[i:], "\n")
		return "ADD: " + first
	}
	return stderr
}
