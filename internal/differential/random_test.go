package differential

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestRandom builds Dockerfiles that nobody thought of with a real BuildKit and with manifestctl: as many as
// MANIFESTCTL_DIFFERENTIAL_RANDOM says, from MANIFESTCTL_DIFFERENTIAL_SEED on. A case that differs is worth a place in
// testdata, made smaller.
func TestRandom(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("MANIFESTCTL_DIFFERENTIAL_RANDOM"))
	if n == 0 {
		t.Skip("it builds and runs a BuildKit: make differential-random")
	}
	seed, _ := strconv.Atoi(os.Getenv("MANIFESTCTL_DIFFERENTIAL_SEED"))
	var cases []*testCase
	for i := range n {
		cases = append(cases, randomCase(uint64(seed+i)))
	}
	bs := makeBases(t)
	theirs := startBuildKit(t, bs)
	compare(t, cases, bs, &ours{bin: program(t), bases: bs}, func(t *testing.T, c *testCase) (string, string) {
		text, out := answer(t, theirs, bs, c)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the case:\n%s", txtar.Format(&txtar.Archive{Files: append(c.files, txtar.File{Name: "@", Data: []byte(strings.Join(c.setup, "\n"))})}))
			}
		})
		return text, out
	}, func(theirs, ours string) bool {
		// Of several stages that fail, chance says which is the first.
		return equal(theirs, ours) || strings.HasPrefix(theirs, "fails") && strings.HasPrefix(ours, "fails")
	})
}

// randomCase makes a Dockerfile of several stages of steps that change a few names again and again. Directories whose time alone
// may have changed, as that of /etc by BuildKit's stubs, are not copied from other stages: BuildKit copies from the tree
// that steps left, manifestctl from that of the layers, which do not tell such times.
func randomCase(seed uint64) *testCase {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // a test's
	c := &testCase{topic: "random", name: strconv.FormatUint(seed, 10)}
	g.context(c)
	stages := 1 + g.IntN(3)
	for i := range stages {
		base := "busybox"
		if i > 0 && g.one(3) {
			base = fmt.Sprintf("s%d", g.IntN(i))
		}
		g.line("FROM %s AS s%d", base, i)
		for range 1 + g.IntN(6) {
			g.step(i)
		}
	}
	c.files = append(c.files, txtar.File{Name: "Dockerfile", Data: []byte(strings.Join(g.lines, "\n") + "\n")})
	return c
}

type generator struct {
	*rand.Rand
	lines []string
	count int
}

func (g *generator) line(format string, args ...any) {
	g.lines = append(g.lines, fmt.Sprintf(format, args...))
}

// next is a content that no other file has: one that is copied over a file of the same content and time is as it was here, and
// changed to BuildKit, which sees the parts of a second that no image has.
func (g *generator) next() int {
	g.count++
	return g.count
}

// one is true once in n times.
func (g *generator) one(n int) bool { return g.IntN(n) == 0 }

func (g *generator) of(words ...string) string { return words[g.IntN(len(words))] }

// context makes a small tree.
func (g *generator) context(c *testCase) {
	dirs := []string{"", "x/", "x/y/", "z/"}
	for i := range 3 + g.IntN(6) {
		name := g.of(dirs...) + g.of("a", "b", "c.txt", "d.go", "e")
		if taken(c, name) {
			continue
		}
		c.files = append(c.files, txtar.File{Name: name, Data: fmt.Appendf(nil, "%d of the context\n", i)})
		if g.one(3) {
			c.setup = append(c.setup, fmt.Sprintf("chmod %s %s", g.of("0600", "0755", "4755", "0444", "2644"), name))
		}
	}
	c.files = append(c.files, txtar.File{Name: "x/y/sure", Data: []byte("sure\n")}, txtar.File{Name: "z/sure", Data: []byte("sure\n")})
	if g.one(3) {
		c.setup = append(c.setup, fmt.Sprintf("symlink %s x/%s", g.of("y", "../z", "/opt/data", "nowhere", "a"), g.of("l1", "l2")))
	}
	if g.one(3) {
		c.setup = append(c.setup, "dir "+g.of("x/empty", "empty"))
	}
	if g.one(3) {
		c.setup = append(c.setup, fmt.Sprintf("chmod %s %s", g.of("0700", "2755", "1777", "0555"), g.of("x", "z", "x/y")))
	}
	if g.one(4) {
		c.setup = append(c.setup, "hardlink z/sure z/again")
	}
	if g.one(4) {
		c.files = append(c.files, txtar.File{Name: ".dockerignore", Data: []byte(g.of("**/a\n", "x\n!x/y\n", "*.go\n", "z/*\n!z/sure\n"))})
	}
}

func taken(c *testCase, name string) bool {
	for _, f := range c.files {
		if f.Name == name || strings.HasPrefix(f.Name, name+"/") {
			return true
		}
	}
	return false
}

func (g *generator) step(stage int) {
	switch g.IntN(10) {
	case 0, 1, 2, 3, 4:
		g.run(stage)
	case 5, 6, 7:
		g.copy(stage)
	case 8:
		g.line("%s", g.of("WORKDIR /w", "WORKDIR d", "WORKDIR /new/work", "WORKDIR /link/in", "WORKDIR /opt/data/up", "ENV X=y", "USER app", "USER root", "USER 77:88", "VOLUME /w/d", "USER root"))
	case 9:
		g.line("ADD %s%s %s", g.flags(false), g.of("x", "z/", "x/y/sure", "z/sure"), g.to())
	}
}

// place is a name in the image; few, so that steps meet.
func (g *generator) place() string {
	return g.of("/w", "/w", "/w", "/opt/data", "/w/d", "/w/d/e", "/tmp", "/link", "/etc", "/n") + "/" + g.of("a", "b", "c", "d", "e", "l", "a", "b")
}

func (g *generator) directory() string {
	return g.of("/w", "/w/d", "/w/d/e", "/opt", "/opt/data", "/opt/data/sub", "/n", "/home", "/tmp/t", "/link")
}

func (g *generator) to() string {
	switch g.IntN(4) {
	case 0:
		return g.directory() + "/"
	case 1:
		return g.directory()
	case 2:
		return g.of("rel", "./", "d/", "d/e")
	}
	return g.place()
}

func (g *generator) flags(from bool) string {
	var b strings.Builder
	if g.one(4) {
		fmt.Fprintf(&b, "--chown=%s ", g.of("1:2", "app", "web:extra", "0:33", "7"))
	}
	if g.one(5) {
		fmt.Fprintf(&b, "--chmod=%s ", g.of("0640", "755", "u=rwX,go=rX", "4711", "a-w"))
	}
	if g.one(6) {
		b.WriteString("--link ")
	}
	if from && g.one(8) {
		fmt.Fprintf(&b, "--exclude=%s ", g.of("*.go", "a", "y", "**/sure"))
	}
	return b.String()
}

func (g *generator) copy(stage int) {
	if stage > 0 && g.one(2) {
		from := fmt.Sprintf("s%d", g.IntN(stage))
		src := g.of("/opt", "/opt/data", "/opt/data/", "/opt/data/[abc]", "/opt/data/a", "/link", "/link/", "/etc/passwd", "/w*", "/opt/d*/[ab]", "/home", "/opt/data/sub", "/opt/suid")
		g.line("COPY --from=%s %s%s%s %s", from, g.flags(true), g.of("", "", "", "", "--parents "), src, g.to())
		return
	}
	src := g.of("x", "x/", "z", "z/", ".", "x/y", "x/y/", "x/y/sure", "z/s*", "x/y/sure z/sure", "x z", "*", "x/*", "**/sure", "./x/../z")
	parents := ""
	if g.one(8) && src != "." { // of a whole context BuildKit says that / was not found
		parents = "--parents "
	}
	g.line("COPY %s%s%s %s", g.flags(true), parents, src, g.to())
}

func (g *generator) run(stage int) {
	var mounts string
	if g.one(6) {
		mounts = "--mount=type=" + g.of("tmpfs,target=/w/m ", "cache,target=/w/cache ", "bind,source=x,target=/w/x ", "bind,source=z,target=/b,rw ", "tmpfs,target=/opt/data/sub ", "bind,source=z/sure,target=/w/sure ")
		if stage > 0 && g.one(2) {
			mounts = fmt.Sprintf("--mount=type=bind,from=s%d,source=/opt,target=/w/opt%s ", g.IntN(stage), g.of("", ",rw"))
		}
	}
	var ops []string
	for range 1 + g.IntN(6) {
		ops = append(ops, g.op())
	}
	g.line("RUN %smkdir -p /w/d; %s; true", mounts, strings.Join(ops, "; "))
}

// op is a command for busybox; many fail, the same way on both sides.
func (g *generator) op() string {
	p, q, d := g.place(), g.place(), g.directory()
	switch g.IntN(24) {
	case 0, 1:
		return fmt.Sprintf("echo %d > %s", g.next(), p)
	case 2:
		return fmt.Sprintf("echo more >> %s", p)
	case 3, 4:
		return "mkdir -p " + g.of(p, d)
	case 5:
		return "rm -rf " + g.of(p, d)
	case 6:
		return "rm -f " + p
	case 7, 8:
		return fmt.Sprintf("mv %s %s", g.of(p, d), q)
	case 9:
		return fmt.Sprintf("mv -T %s %s", g.of(p, d), g.of(q, g.directory()))
	case 10, 11:
		return fmt.Sprintf("ln %s %s", p, q)
	case 12:
		return fmt.Sprintf("ln -s%s %s %s", g.of("", "f", "n"), g.of("a", "../b", "/w/d", "/opt/data", "nowhere"), p)
	case 13:
		return fmt.Sprintf("cp -a %s %s", g.of(p, d), q)
	case 14:
		return fmt.Sprintf("chmod %s %s", g.of("600", "0755", "4755", "u+s", "1777", "2750", "a-rwx"), g.of(p, d))
	case 15:
		return fmt.Sprintf("chown %s %s %s", g.of("", "-h", "-R"), g.of("1:2", "app", "0:0", "65534:65534"), g.of(p, d))
	case 16:
		return fmt.Sprintf("touch %s %s", g.of("", "-d @1500000000", "-c"), p)
	case 17:
		return fmt.Sprintf("rm -rf %s; mkdir -p %s", d, d)
	case 18:
		return fmt.Sprintf("mv %s %s.old; mv %s.old %s", d, d, d, d)
	case 19:
		return "mkfifo " + p + ".fifo" // which nobody opens
	case 20:
		return fmt.Sprintf("cp %s %s.new && echo %d >> %s.new && mv %s.new %s", p, p, g.next(), p, p, p)
	case 21:
		return fmt.Sprintf("ln %s %s.l; rm -f %s; mv %s.l %s", p, p, p, p, p)
	case 22:
		return fmt.Sprintf("mv %s %s.t; mv %s %s; mv %s.t %s", p, p, q, p, p, q)
	}
	return fmt.Sprintf("truncate -s %d %s", g.IntN(9000), p)
}
