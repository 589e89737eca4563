package verify

import (
	"path"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/exe"
)

// maxLibraries bounds the libraries of one program.
const maxLibraries = 4096

// loaded is a program or library as the dynamic loader has it.
type loaded struct {
	file file
	exe  *exe.File
	name string  // as it was found, not resolved: $ORIGIN is its directory
	by   *loaded // what needed it; nil: the program
}

// missing is a library that a program needs and does not get.
type missing struct {
	name  string
	by    *loaded
	other *file // there for another machine only; nil: not at all
}

// linker finds the libraries of programs as glibc's and musl's loaders do (ld.so(8); musl's ldso/dynlink.c).
type linker struct {
	t     *tree
	env   []string // LD_LIBRARY_PATH
	conf  []string // of glibc: /etc/ld.so.conf and what it includes
	ready bool
}

// multiarch are Debian's directories, which its loader has compiled in.
var multiarch = map[string][]string{
	"amd64": {"x86_64-linux-gnu"}, "386": {"i386-linux-gnu", "i686-linux-gnu"}, "arm64": {"aarch64-linux-gnu"},
	"arm": {"arm-linux-gnueabihf", "arm-linux-gnueabi"}, "riscv64": {"riscv64-linux-gnu"}, "ppc64le": {"powerpc64le-linux-gnu"},
	"ppc64": {"powerpc64-linux-gnu"}, "ppc": {"powerpc-linux-gnu"}, "s390x": {"s390x-linux-gnu"}, "mips64le": {"mips64el-linux-gnuabi64"},
	"mips64": {"mips64-linux-gnuabi64"}, "mipsle": {"mipsel-linux-gnu"}, "mips": {"mips-linux-gnu"}, "loong64": {"loongarch64-linux-gnu"},
	"mips64p32le": {"mips64el-linux-gnuabin32"}, "amd64p32": {"x86_64-linux-gnux32"}, "sparc64": {"sparc64-linux-gnu"},
}

// isMusl reports whether a program is for musl's loader.
func isMusl(interp string) bool { return strings.HasPrefix(path.Base(interp), "ld-musl-") }

// knowsLoader reports whether the rules for a program's loader are known here.
func knowsLoader(interp string) bool {
	base := path.Base(interp)
	return isMusl(interp) || strings.HasPrefix(base, "ld-linux") || strings.HasPrefix(base, "ld64.so") || strings.HasPrefix(base, "ld.so.1") ||
		strings.HasPrefix(base, "ld-2.")
}

// closure finds all libraries that program needs, and what is missing of them.
func (l *linker) closure(program file) (libs []*loaded, lacks []missing) {
	main := &loaded{file: program, exe: program.exe(), name: program.Name}
	interp := main.exe.Interp
	if interp == "" || !knowsLoader(interp) {
		return nil, nil
	}
	have := map[string]bool{}
	if ld, ok := l.t.get(interp); ok {
		have[path.Base(interp)] = true
		if e := ld.exe(); e != nil && e.Soname != "" {
			have[e.Soname] = true
		}
	}
	queue := []*loaded{main}
	for len(queue) > 0 && len(libs) < maxLibraries {
		from := queue[0]
		queue = queue[1:]
		for _, name := range from.exe.Needed {
			if have[name] || isMusl(interp) && muslOwn(name) {
				continue
			}
			have[name] = true
			lib, other := l.find(name, from, main)
			if lib == nil {
				lacks = append(lacks, missing{name, from, other})
				continue
			}
			if s := lib.exe.Soname; s != "" {
				have[s] = true
			}
			libs = append(libs, lib)
			queue = append(queue, lib)
		}
	}
	return libs, lacks
}

// muslOwn reports whether musl's loader is the library itself.
func muslOwn(name string) bool {
	rest, ok := strings.CutPrefix(name, "lib")
	if !ok {
		return false
	}
	for _, own := range []string{"c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet."} {
		if strings.HasPrefix(rest, own) {
			return true
		}
	}
	return false
}

// find looks a library up. The loader goes on where a file of the name is for another machine.
func (l *linker) find(name string, from, main *loaded) (*loaded, *file) {
	var other *file
	try := func(at string) *loaded {
		f, ok := l.t.get(at)
		if !ok || !f.isRegular() {
			return nil
		}
		e := f.exe()
		if e == nil || e.Format != exe.ELF || !matches(main.exe, e) {
			if other == nil && e != nil {
				other = &f
			}
			return nil
		}
		return &loaded{file: f, exe: e, name: strings.TrimPrefix(path.Clean("/"+at), "/"), by: from}
	}
	if strings.Contains(name, "/") {
		return try(l.expand(name, from, main)), other
	}
	for _, dir := range l.dirs(from, main) {
		if lib := try(path.Join("/", dir, name)); lib != nil {
			return lib, nil
		}
	}
	return nil, other
}

// matches reports whether a program can load a library, by its header.
func matches(program, lib *exe.File) bool {
	if program.Arch != lib.Arch || program.Bits != lib.Bits || program.Big != lib.Big {
		return false
	}
	if a, b := program.ARM, lib.ARM; a != nil && b != nil && a.Float != "" && b.Float != "" && a.Float != b.Float {
		return false
	}
	if a, b := program.RISCV, lib.RISCV; a != nil && b != nil && a.Float != b.Float {
		return false
	}
	return true
}

// dirs are the directories that are searched for what from needs, in order.
func (l *linker) dirs(from, main *loaded) []string {
	l.prepare()
	var out []string
	add := func(at *loaded, list []string) {
		for _, dir := range list {
			for _, d := range l.expandAll(dir, at, main) {
				if d != "" {
					out = append(out, d)
				}
			}
		}
	}
	if isMusl(main.exe.Interp) {
		out = append(out, l.env...)
		for at := from; at != nil; at = at.by {
			add(at, at.exe.RPath)
			add(at, at.exe.RunPath)
		}
		return append(out, l.muslDirs(main.exe.Interp)...)
	}
	if len(from.exe.RunPath) == 0 {
		for at := from; at != nil; at = at.by {
			if len(at.exe.RunPath) == 0 {
				add(at, at.exe.RPath)
			}
		}
	}
	out = append(out, l.env...)
	add(from, from.exe.RunPath)
	out = append(out, l.conf...)
	for _, t := range multiarch[main.exe.Arch] {
		out = append(out, "lib/"+t, "usr/lib/"+t)
	}
	if main.exe.Bits == 64 {
		out = append(out, "lib64", "usr/lib64")
	} else {
		out = append(out, "lib32", "usr/lib32", "libx32", "usr/libx32", "libo32", "usr/libo32")
	}
	return append(out, "lib", "usr/lib")
}

// muslDirs are musl's own: /etc/ld-musl-ARCH.path, or else what is compiled in.
func (l *linker) muslDirs(interp string) []string {
	arch := strings.TrimSuffix(strings.TrimPrefix(path.Base(interp), "ld-musl-"), ".so.1")
	if text, ok := l.t.text("etc/ld-musl-" + arch + ".path"); ok && text != "" {
		return strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '\n' })
	}
	return []string{"lib", "usr/local/lib", "usr/lib"}
}

// prepare reads the loader's configuration, once.
func (l *linker) prepare() {
	if l.ready {
		return
	}
	l.ready = true
	l.readConf("etc/ld.so.conf", 0)
}

// readConf reads a file of directories and include lines (ldconfig(8)).
func (l *linker) readConf(name string, depth int) {
	text, _ := l.t.text(name)
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 || len(l.conf) > 1000 {
			continue
		}
		if words[0] != "include" {
			for _, dir := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ':' || r == ',' || r == '\n' }) {
				dir, _, _ = strings.Cut(dir, "=") // DIR=TYPE of old files
				l.conf = append(l.conf, dir)
			}
			continue
		}
		for _, pattern := range words[1:] {
			if !strings.HasPrefix(pattern, "/") {
				pattern = path.Join("/etc", pattern)
			}
			names, err := l.t.view.Glob(pattern)
			if err != nil || depth > 3 {
				continue
			}
			for _, n := range names {
				l.readConf(n, depth+1)
			}
		}
	}
}

// expand replaces $ORIGIN by the directory that at was found in.
func (l *linker) expand(dir string, at, main *loaded) string {
	all := l.expandAll(dir, at, main)
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// expandAll replaces $ORIGIN, $LIB and $PLATFORM; all that they can mean. A relative directory is the working
// directory's, which nobody knows: it is left out.
func (l *linker) expandAll(dir string, at, main *loaded) []string {
	dir = strings.NewReplacer("${ORIGIN}", "$ORIGIN", "${LIB}", "$LIB", "${PLATFORM}", "$PLATFORM").Replace(dir)
	out := []string{dir}
	if strings.Contains(dir, "$ORIGIN") {
		found, real := path.Dir("/"+at.name), path.Dir("/"+at.file.Name)
		out = []string{strings.ReplaceAll(dir, "$ORIGIN", found)}
		if real != found {
			out = append(out, strings.ReplaceAll(dir, "$ORIGIN", real))
		}
	}
	if strings.Contains(dir, "$LIB") {
		libs := []string{"lib", "lib64"}
		for _, t := range multiarch[main.exe.Arch] {
			libs = append(libs, "lib/"+t)
		}
		var all []string
		for _, d := range out {
			for _, lib := range libs {
				all = append(all, strings.ReplaceAll(d, "$LIB", lib))
			}
		}
		out = all
	}
	kept := out[:0]
	for _, d := range out {
		if strings.HasPrefix(d, "/") && !strings.Contains(d, "$") {
			kept = append(kept, d)
		}
	}
	return kept
}
