package main

import (
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/emulate"
)

// hostFlags are the flags of what runs steps, or asks whether they would run.
type hostFlags struct {
	emulators []string
	emulation string
	executor  string
	overwrite bool
}

func (h *hostFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&h.emulators, "emulator", nil, "`ARCH=PATH` emulator of an architecture; may be repeated")
	f.StringVar(&h.emulation, "emulation", "auto", "`HOW` by what means foreign platforms run: private (binfmt_misc in the user namespace), ptrace, host (its handlers), none, or auto, the first of them that works")
	f.StringVar(&h.executor, "executor", "auto", "`HOW` steps run: root, ranges or single (in a user namespace with these ids), chroot (root of a container without namespaces), inplace (in the root file system of this container itself, which is put aside for each step; never chosen by itself), or auto, the first that works")
	f.BoolVar(&h.overwrite, "overwrite-root-filesystem", false, "let --executor inplace put aside all that is in / even where nothing tells that this is a container")
}

func (h *hostFlags) options(e *env) (build.Options, error) {
	paths, err := keyValues("emulator", h.emulators, nil)
	if err != nil {
		return build.Options{}, err
	}
	mode, err := emulate.ParseMode(h.emulation)
	if err != nil {
		return build.Options{}, usagef("--emulation %s: want auto, private, ptrace, host or none", h.emulation)
	}
	executor, err := build.ParseExecutor(h.executor)
	if err != nil {
		return build.Options{}, usagef("--executor %s: want auto, root, ranges, single, chroot or inplace", h.executor)
	}
	if h.overwrite && executor != build.ExecutorInPlace {
		return build.Options{}, usagef("--overwrite-root-filesystem is for --executor inplace")
	}
	return build.Options{SandboxMode: executor, OverwriteRoot: h.overwrite, Emulators: paths, Emulation: mode, EmulatorDir: e.emulatorDir(), Path: e.getenv("PATH")}, nil
}

// emulatorDir is where the user keeps emulators; "" without a home.
func (e *env) emulatorDir() string {
	if dir := e.getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "manifestctl", "emulators")
	}
	if home := e.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "manifestctl", "emulators")
	}
	return ""
}
