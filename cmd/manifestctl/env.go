package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/term"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// env is everything a command has of the world. Tests make their own.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookup         func(string) (string, bool)
	now            func() time.Time
	size           func() (cols, rows int) // of the terminal that stderr is; 0: it is none

	globals globals
	atEnd   []func() // run when the command is over
}

// globals are the flags of every command.
type globals struct {
	root      string
	plainHTTP hostsValue
	insecure  hostsValue
	registryFlags
	silent bool // -q of commands that move images: no progress, no summary
}

// hostEnv is the env of this process.
func hostEnv() *env {
	return &env{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		lookup: os.LookupEnv,
		now:    time.Now,
		size: func() (cols, rows int) {
			fd := int(os.Stderr.Fd())
			if !term.IsTerminal(fd) {
				return 0, 0
			}
			if w, h, err := term.GetSize(fd); err == nil && w > 0 {
				return w, h
			}
			return 80, 24
		},
	}
}

// getenv returns a variable, "" when it is not set.
func (e *env) getenv(name string) string {
	v, _ := e.lookup(name)
	return v
}

// println writes one line of result.
func (e *env) println(a ...any) error {
	if _, err := fmt.Fprintln(e.stdout, a...); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// printJSON writes v as the result, indented.
func (e *env) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return e.println(string(b))
}

// note writes one line for people.
func (e *env) note(format string, a ...any) {
	fmt.Fprintf(e.stderr, "%s\n", escape(fmt.Sprintf(format, a...)))
}

// storeRoot is the store's directory: --root, MANIFESTCTL_ROOT, else the user's data directory.
func (e *env) storeRoot() (string, error) {
	if e.globals.root != "" {
		return e.globals.root, nil
	}
	if dir := e.getenv("MANIFESTCTL_ROOT"); dir != "" {
		return dir, nil
	}
	if dir := e.getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) { // the base directory specification ignores relative ones
		return filepath.Join(dir, "manifestctl"), nil
	}
	if runtime.GOOS == "windows" {
		if dir := e.getenv("LOCALAPPDATA"); dir != "" {
			return filepath.Join(dir, "manifestctl"), nil
		}
	}
	if home := e.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "manifestctl"), nil
	}
	return "", usagef("no place for the store: HOME is not set").withHint("give --root DIR or set MANIFESTCTL_ROOT")
}

// withStore opens the store for the time of f.
func (e *env) withStore(ctx context.Context, o store.Options, f func(*store.Store) error) (err error) {
	root, err := e.storeRoot()
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, root, o)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := st.Close(); err == nil {
			err = cerr
		}
	}()
	return f(st)
}
