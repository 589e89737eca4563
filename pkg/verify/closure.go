package verify

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/exe"
)

// maxDepth is how many scripts may start one another; Linux has the same limit of 4 (fs/exec.c).
const maxDepth = 5

// entrypoint judges what the image starts: entrypoint and command, their interpreters and libraries.
func (j *judgement) entrypoint() {
	c := j.in.Config.Config
	argv := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(argv) == 0 || argv[0] == "" {
		j.add(RuleNothing, RuleNothing.Level, -1, "", "there is neither an entrypoint nor a command")
		return
	}
	what := "entrypoint"
	if len(c.Entrypoint) == 0 {
		what = "command"
	}
	f, ok := j.look(argv[0])
	if !ok {
		j.lacks(what, argv[0])
		return
	}
	j.start(f, 0)
	if word, ok := shellWord(argv); ok {
		if f, ok := j.look(word); ok {
			j.start(f, 0)
		} else if strings.HasPrefix(word, "/") && len(j.in.Unread) == 0 && !allows(j.in.Allow, strings.Trim(word, "/"), nil) {
			j.add(RuleMissing, Warning, -1, word, fmt.Sprintf("the %s runs %s, which is not there", what, word))
		}
	}
	// A wrapper starts what follows it: tini -- app, docker-entrypoint.sh app.
	for i, arg := range argv[1:] {
		if !strings.HasPrefix(arg, "/") && i != len(c.Entrypoint)-1 {
			continue
		}
		if f, ok := j.look(arg); ok && f.isRegular() && f.executable() && f.exe() != nil {
			j.start(f, 0)
		}
	}
}

// lacks reports an entrypoint that is not there.
func (j *judgement) lacks(what, name string) {
	if len(j.in.Unread) > 0 || allows(j.in.Allow, strings.Trim(name, "/"), nil) {
		return
	}
	if strings.ContainsAny(name, `/\`) {
		j.add(RuleMissing, Error, -1, name, fmt.Sprintf("the %s %s is not there", what, name))
		return
	}
	if j.windows() { // its commands may be the shell's own
		return
	}
	j.add(RuleMissing, Error, -1, "", fmt.Sprintf("the %s %s is in no directory of PATH (%s)", what, name, strings.Join(j.path(), ":")))
}

// look finds a command as a runtime does.
func (j *judgement) look(name string) (file, bool) {
	if j.windows() {
		if strings.ContainsAny(name, `/\`) {
			if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, `\`) && !(len(name) > 1 && name[1] == ':') {
				name = j.in.Config.Config.WorkingDir + "/" + name
			}
			return j.t.lookWindows(name)
		}
		for _, dir := range []string{j.in.Config.Config.WorkingDir, `C:\Windows\System32`, `C:\Windows`, `C:\`} {
			if f, ok := j.t.lookWindows(dir + "/" + name); ok {
				return f, true
			}
		}
		return file{}, false
	}
	if strings.Contains(name, "/") {
		return j.t.get(strings.TrimLeft(path.Join("/", j.relative(name)), "/"))
	}
	for _, dir := range j.path() {
		if dir == "" {
			continue
		}
		if f, ok := j.t.get(strings.Trim(path.Join("/", dir, name), "/")); ok && f.isRegular() && f.executable() {
			return f, true
		}
	}
	return file{}, false
}

// relative puts the working directory before a name that is relative.
func (j *judgement) relative(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return path.Join("/", j.in.Config.Config.WorkingDir, name)
}

// start judges what a runtime starts, and what that starts.
func (j *judgement) start(f file, depth int) {
	if j.checked[f.Name] || depth > maxDepth {
		return
	}
	j.checked[f.Name] = true
	j.started[f.Entry] = true
	e := f.exe()
	switch {
	case !f.isRegular():
		j.about(RuleFormat, Error, f, "is started, but it is no file")
		return
	case !f.executable() && !j.windows():
		j.about(RuleMode, Error, f, fmt.Sprintf("is started, but its mode is %04o: nobody may execute it", f.Entry.Mode))
		return
	case e == nil && j.windows(): // .bat, .cmd
		return
	case e == nil:
		j.about(RuleFormat, Error, f, "is started, but it is neither a program nor a script that begins with #!")
		return
	case e.Format == exe.Script:
		if text := j.interpreter(f); text != "" {
			j.about(RuleInterpreter, Error, f, text)
			return
		}
		for _, name := range j.interpreters(f) {
			if next, ok := j.look(name); ok {
				j.start(next, depth+1)
			}
		}
		return
	case !e.Runnable():
		j.about(RuleFormat, Error, f, "is started, but it is an object file")
		return
	}
	if j.machine(f, e) {
		j.links(f, Error)
	}
}

// interpreters are the commands that a script's first line starts: the interpreter, and what env starts.
func (j *judgement) interpreters(f file) []string {
	e := f.exe()
	out := []string{e.Interp}
	if path.Base(e.Interp) != "env" {
		return out
	}
	for _, word := range strings.Fields(e.Arg) {
		if strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
			continue
		}
		return append(out, word)
	}
	return out
}

// interpreter says what a script lacks, "" when all is there.
func (j *judgement) interpreter(f file) string {
	if len(j.in.Unread) > 0 {
		return ""
	}
	for i, name := range j.interpreters(f) {
		next, ok := j.look(name)
		switch {
		case !ok && i == 0:
			return "is a script for " + name + ", which is not there"
		case !ok:
			return "is a script for " + name + ", which is in no directory of PATH"
		case !next.isRegular() || !next.executable():
			return "is a script for " + name + ", which nobody may execute"
		}
	}
	return ""
}

// links judges what a program's dynamic loader needs.
func (j *judgement) links(f file, level Level) {
	e := f.exe()
	if e.Format != exe.ELF || e.Interp == "" || j.windows() {
		return
	}
	ld, ok := j.t.get(strings.TrimLeft(path.Clean("/"+e.Interp), "/"))
	if !ok {
		if len(j.in.Unread) == 0 {
			j.about(RuleInterpreter, level, f, "needs the loader "+e.Interp+", which is not there"+j.libcHint(e))
		}
		return
	}
	j.started[ld.Entry] = true
	if le := ld.exe(); le != nil && (le.Arch != e.Arch || le.Bits != e.Bits) {
		j.about(RuleInterpreter, level, f, "needs the loader "+e.Interp+", which is "+le.String())
		return
	}
	libs, lacks := j.linker.closure(f)
	for _, lib := range libs {
		if j.started[lib.file.Entry] && j.checked[lib.file.Name] {
			continue
		}
		j.started[lib.file.Entry], j.checked[lib.file.Name] = true, true
		if v, why := judge(lib.exe, j.in.Platform); v == tooNew {
			// Attributes of Arm's libraries say the newest code in them, which they may choose at run time.
			l := level
			if lib.exe.ARM != nil {
				l = Warning
			}
			j.about(RuleVariant, l, lib.file, why+", which "+j.in.Platform.String()+" does not promise; "+f.abs()+" loads it")
		}
	}
	if len(j.in.Unread) > 0 {
		return
	}
	for _, m := range lacks {
		l := level
		if fromHost(m.name) {
			l = Note
		}
		text := "needs " + m.name
		if m.by.file.Name != f.Name {
			text = "needs " + m.by.file.abs() + ", and that " + m.name
		}
		if m.other != nil {
			text += ", which is there as " + m.other.exe().String() + " only, at " + m.other.abs()
		} else {
			text += ", which is not there"
		}
		j.about(RuleLibrary, l, f, text)
	}
}

// libcHint tells whoever copied a program of one C library into an image with another.
func (j *judgement) libcHint(e *exe.File) string {
	musl, _ := j.t.view.Glob("/lib/ld-musl-*")
	switch {
	case isMusl(e.Interp):
		return ": it is made for musl, as in Alpine"
	case len(musl) > 0:
		return ": it is made for glibc, and the image has musl"
	}
	return ""
}

// fromHost reports whether runtimes bring a library from the host: the drivers of graphics processors.
func fromHost(name string) bool {
	for _, prefix := range []string{"libcuda.so", "libnvidia-", "libnvcuvid.so", "libnvoptix.so"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// shellWord is the command of a shell form: the first word of sh -c '[exec ]COMMAND ...', when it is one by itself.
func shellWord(argv []string) (string, bool) {
	if len(argv) < 3 || argv[1] != "-c" {
		return "", false
	}
	switch path.Base(argv[0]) {
	case "sh", "bash", "ash", "dash", "zsh":
	default:
		return "", false
	}
	words := strings.Fields(argv[2])
	if len(words) > 1 && words[0] == "exec" {
		words = words[1:]
	}
	if len(words) == 0 {
		return "", false
	}
	for _, r := range words[0] {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+", r)) {
			return "", false
		}
	}
	return words[0], true
}
