package local

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// ReadyKind is the kind of the store's records that say that processes have run on a host, as one user sees it.
const ReadyKind = "ready"

// Ready finds out whether processes can run on this host, before any of their inputs is there. What it found is remembered
// until the host is started again: a build that finds all of its steps in the cache starts no sandbox.
func (w *Worker) Ready(ctx context.Context) error {
	key := w.hostKey()
	if _, err := w.o.Store.GetRecord(ReadyKind, key); err == nil {
		return nil
	}
	if _, err := w.sandbox(ctx); err != nil {
		return err
	}
	return w.o.Store.PutRecord(ReadyKind, key, store.Record{})
}

// hostKey identifies what decides whether a sandbox can be started: the boot, who asks in which namespaces, with which rights
// and options.
func (w *Worker) hostKey() string {
	var b strings.Builder
	boot, _ := os.ReadFile(bootIDFile) // "" outside of linux, where the answer is always the same
	fmt.Fprintf(&b, "%s %d %+v\n", boot, os.Geteuid(), w.o.Sandbox)
	for _, ns := range []string{"user", "pid", "mnt"} {
		name, _ := os.Readlink("/proc/self/ns/" + ns)
		fmt.Fprintln(&b, name)
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters":
			b.WriteString(line)
		}
	}
	return digest.FromString(b.String()).Encoded()
}
