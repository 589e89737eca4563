package local

import (
	"fmt"
	"os"
)

// scratch makes a directory for spooled data that goes when the worker is closed.
func (w *Worker) scratch() (string, error) {
	w.spoolMu.Lock()
	defer w.spoolMu.Unlock()
	if w.spool == "" {
		dir, err := os.MkdirTemp(w.o.Store.SnapshotDir(), "spool-")
		if err != nil {
			return "", fmt.Errorf("making a scratch directory: %w", err)
		}
		w.spool = dir
	}
	dir, err := os.MkdirTemp(w.spool, "")
	if err != nil {
		return "", fmt.Errorf("making a scratch directory: %w", err)
	}
	return dir, nil
}
