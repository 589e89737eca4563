package emulate

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

const (
	binfmtDir = "/proc/sys/fs/binfmt_misc"
	// versionTimeout bounds `qemu --version`: it prints and ends within milliseconds.
	versionTimeout = 20 * time.Second
	// defaultPath is searched when the environment has no PATH.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// found is the result of looking for one emulator.
type found struct {
	path   string
	reason string // why path is ""
}

// search holds what one call found out about the host.
type search struct {
	ctx     context.Context //nolint:containedctx // lives for one call of List, For or Handlers
	o       Options
	machine platform.Platform
	dirs    []string

	emulators map[string]found
	host      []entry // nil until asked for
	hostRead  bool
}

func newSearch(ctx context.Context, o Options) *search {
	path := o.Path
	if path == "" {
		path = os.Getenv("PATH") //nolint:forbidigo // what Options.Path documents
	}
	if path == "" {
		path = defaultPath
	}
	dirs := filepath.SplitList(path)
	if o.Dir != "" {
		dirs = append([]string{o.Dir}, dirs...)
	}
	return &search{ctx: ctx, o: o, machine: Machine(), dirs: dirs, emulators: map[string]found{}}
}

// support says how p runs: the ladder, top first.
func (s *search) support(p platform.Platform) Support {
	r := Support{Platform: p, How: None}
	if p.OS != "linux" {
		r.Reason = fmt.Sprintf("programs of %s do not run on linux", p.OS)
		return r
	}
	m, known := machineOf(p.Arch)
	why, native := s.native(p)
	if native {
		r.How = Native
		return r
	}
	if why != "" { // the right machine, but not good enough
		r.Reason = why
		return r
	}
	if !known {
		r.Reason = "no qemu-user binary is known for it"
		return r
	}
	if p.Arch == "amd64" && p.Variant == "v4" {
		r.Reason = "qemu does not emulate AVX-512"
		return r
	}
	if s.o.Mode == Off {
		r.Reason = "emulation is turned off (--emulation none)"
		return r
	}
	e := s.emulator(m)
	if e.path != "" && s.o.Mode != HostOnly {
		r.How, r.Path, r.Version = Private, e.path, s.version(e.path)
		r.Warning = warning(p.Arch, r.Version, kernel())
		if s.o.Mode == PtraceOnly {
			r.How = Ptrace
		}
		return r
	}
	if s.o.Mode == HostOnly || s.o.Mode == Auto && len(s.o.Emulators) == 0 && !s.anyEmulator() {
		for _, h := range s.hostEntries() {
			if h.runs(m) {
				r.How, r.Path = Host, h.interpreter
				return r
			}
		}
	}
	r.Reason = e.reason
	if s.o.Mode == HostOnly {
		r.Reason = "the host has no handler for it with flag F (--emulation host)"
	}
	return r
}

// emulator looks for m's qemu: the one that was named, else qemu-ARCH-static in all of $PATH, else qemu-ARCH.
func (s *search) emulator(m machine) found {
	if f, ok := s.emulators[m.arch]; ok {
		return f
	}
	f := s.find(m)
	s.emulators[m.arch] = f
	return f
}

func (s *search) find(m machine) found {
	if path, ok := s.o.Emulators[m.arch]; ok {
		abs, err := filepath.Abs(path)
		if err != nil {
			return found{reason: fmt.Sprintf("emulator %q: %v", path, err)}
		}
		if err := usable(abs, m); err != nil {
			return found{reason: fmt.Sprintf("emulator %s: %v", path, err)}
		}
		return found{path: abs}
	}
	reason := ""
	for _, name := range []string{"qemu-" + m.qemu + "-static", "qemu-" + m.qemu} {
		for _, dir := range s.dirs {
			if !filepath.IsAbs(dir) { // a relative $PATH entry would depend on where the command was started
				continue
			}
			path := filepath.Join(dir, name)
			err := usable(path, m)
			if err == nil {
				return found{path: path}
			}
			if !errors.Is(err, fs.ErrNotExist) && reason == "" {
				reason = fmt.Sprintf("%s: %v; ", path, err)
			}
		}
	}
	return found{reason: fmt.Sprintf("%sinstall qemu-user-static, take one out of an image (manifestctl emulate install), or name a static qemu-%s with --emulator %s=PATH", reason, m.qemu, m.arch)}
}

func (s *search) anyEmulator() bool {
	for _, m := range machines {
		if m.arch != s.machine.Arch && s.emulator(m).path != "" {
			return true
		}
	}
	return false
}

func (s *search) hostEntries() []entry {
	if !s.hostRead {
		s.host, s.hostRead = hostEntries(binfmtDir), true
	}
	return s.host
}

// usable reports why the file cannot be an emulator in a rootfs of another machine; nil when it can.
func usable(path string, m machine) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return errors.New("not an executable file")
	}
	if (Handler{Name: m.arch, Path: path}).Line() == "" {
		return errors.New("its path has a colon or a newline, which binfmt_misc cannot take")
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("not an ELF program: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("dynamically linked, its libraries are not in the rootfs (the package qemu-user-static has a static one)")
		}
	}
	return nil
}

// version gives the version of the emulator at path, as it was remembered or as it says; "" when it does not say.
func (s *search) version(path string) string {
	file, ok := identity(path)
	if s.o.Versions == nil || !ok {
		return version(s.ctx, path)
	}
	if v, ok := s.o.Versions.Version(file); ok {
		return v
	}
	v := version(s.ctx, path)
	if v != "" {
		s.o.Versions.Keep(file, v)
	}
	return v
}

// versions holds what `qemu --version` said, for the life of the process: path → *onceVersion.
var versions sync.Map

type onceVersion struct {
	once sync.Once
	text string
}

var versionText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`version ([0-9][0-9A-Za-z.~+-]*)`) })

// version asks the emulator at path; "" when it does not say.
func version(ctx context.Context, path string) string {
	v, _ := versions.LoadOrStore(path, &onceVersion{})
	o, ok := v.(*onceVersion)
	if !ok {
		return ""
	}
	o.once.Do(func() {
		// The answer is kept for other callers, so it does not depend on this one's cancellation.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), versionTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, "--version")
		cmd.Env = []string{}
		cmd.WaitDelay = versionTimeout
		out, err := cmd.Output()
		if err != nil {
			return
		}
		first, _, _ := strings.Cut(string(out), "\n")
		if m := versionText().FindStringSubmatch(first); m != nil {
			o.text = m[1]
		}
	})
	return o.text
}
