package verify_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// goTarget is something that Go compiles for, and the lowest platform that runs it.
type goTarget struct {
	os, arch string
	env      string // GOARM=5
	variant  string // of the platform
	rank     int    // among the variants of the architecture
	more     bool   // only with MANIFESTCTL_REAL
}

func (g goTarget) platform() string {
	p := g.os + "/" + g.arch
	if g.variant != "" {
		p += "/" + g.variant
	}
	return p
}

// goTargets are all that Go has, of those that need no C compiler. The ones that are not marked are compiled in every run.
func goTargets(t *testing.T) []goTarget {
	list := []goTarget{
		{"linux", "amd64", "GOAMD64=v1", "", 1, false},
		{"linux", "amd64", "GOAMD64=v2", "v2", 2, true},
		{"linux", "amd64", "GOAMD64=v3", "v3", 3, false},
		{"linux", "amd64", "GOAMD64=v4", "v4", 4, true},
		{"linux", "arm", "GOARM=5", "v5", 5, false},
		{"linux", "arm", "GOARM=6", "v6", 6, true},
		{"linux", "arm", "GOARM=7", "v7", 7, false},
		{"linux", "arm", "GOARM=7,softfloat", "v7", 7, true},
		{"linux", "arm", "GOARM=5,hardfloat", "v5", 5, true},
		{"linux", "arm64", "GOARM64=v8.0", "", 800, false},
		{"linux", "arm64", "GOARM64=v8.2,crypto", "v8.2", 802, true},
		{"linux", "arm64", "GOARM64=v9.0", "v9", 900, true},
		{"linux", "386", "GO386=sse2", "", 1, true},
		{"linux", "386", "GO386=softfloat", "", 1, false},
		{"linux", "mips", "GOMIPS=hardfloat", "", 1, true},
		{"linux", "mips", "GOMIPS=softfloat", "", 1, true},
		{"linux", "mipsle", "GOMIPS=hardfloat", "", 1, true},
		{"linux", "mipsle", "GOMIPS=softfloat", "", 1, false},
		{"linux", "mips64", "GOMIPS64=hardfloat", "", 1, true},
		{"linux", "mips64", "GOMIPS64=softfloat", "", 1, true},
		{"linux", "mips64le", "GOMIPS64=hardfloat", "", 1, false},
		{"linux", "mips64le", "GOMIPS64=softfloat", "", 1, true},
		{"linux", "ppc64", "GOPPC64=power8", "", 8, true},
		{"linux", "ppc64le", "GOPPC64=power8", "", 8, false},
		{"linux", "ppc64le", "GOPPC64=power9", "power9", 9, true},
		{"linux", "ppc64le", "GOPPC64=power10", "power10", 10, true},
		{"linux", "riscv64", "GORISCV64=rva20u64", "", 20, false},
		{"linux", "riscv64", "GORISCV64=rva22u64", "rva22u64", 22, true},
		{"linux", "riscv64", "GORISCV64=rva23u64", "rva23u64", 23, true},
		{"wasip1", "wasm", "GOWASM=satconv", "", 0, true},
		{"windows", "386", "GO386=softfloat", "", 0, true},
	}
	quick := map[string]bool{"linux/s390x": true, "windows/amd64": true, "darwin/arm64": true, "freebsd/amd64": true, "wasip1/wasm": true}
	out, err := exec.Command("go", "tool", "dist", "list").Output()
	require.NoError(t, err)
	for line := range strings.FieldsSeq(string(out)) {
		system, arch, _ := strings.Cut(line, "/")
		// These need a linker for C.
		if system == "ios" || system == "android" && arch != "arm64" {
			continue
		}
		have := false
		for _, g := range list {
			have = have || g.os == system && g.arch == arch
		}
		if have && line != "wasip1/wasm" && line != "windows/386" {
			continue
		}
		g := goTarget{os: system, arch: arch, more: !quick[line]}
		if arch == "arm" { // the default of GOARM is 7 where there is hardware for it, 5 or 6 else
			g.env, g.variant, g.rank = "GOARM=7", "v7", 7
		}
		if arch == "amd64" || arch == "arm64" {
			g.rank = map[string]int{"amd64": 1, "arm64": 800}[arch]
		}
		list = append(list, g)
	}
	return list
}

// runsOn is what the test knows of who runs what, apart from the package: fits, is compatible, or not.
func runsOn(program, machine goTarget) (fits, compatible bool) {
	older := map[string]string{"amd64": "386", "mips64": "mips", "mips64le": "mipsle"}
	switch {
	case program.os != machine.os:
		return program.arch == "wasm" && machine.arch == "wasm", false // any system runs it
	case program.arch == machine.arch:
		return program.rank <= machine.rank, false
	}
	return false, older[machine.arch] == program.arch
}

// TestGoMatrix compiles a program for every target that Go has and puts each into an image of every platform: every wrong
// pairing is found, every right one is silent.
func TestGoMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for many machines; -short")
	}
	all := os.Getenv("MANIFESTCTL_REAL") != ""
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n\ngo 1.24\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nfunc main() { println(1) }\n"), 0o644))
	var targets []goTarget
	for _, g := range goTargets(t) {
		if all || !g.more {
			targets = append(targets, g)
		}
	}
	layers := make([]verify.Layer, len(targets))
	for i, g := range targets {
		file := filepath.Join(dir, fmt.Sprint(i))
		args := []string{"build", "-trimpath", "-o", file}
		if i%2 == 1 { // stripped, too
			args = append(args, "-ldflags=-s -w")
		}
		cmd := exec.CommandContext(t.Context(), "go", append(args, ".")...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+g.os, "GOARCH="+g.arch)
		if g.env != "" {
			cmd.Env = append(cmd.Env, g.env)
		}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", g, out)
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		name := "app"
		if g.os == "windows" {
			name = "Files/app"
		}
		layers[i] = read(t, testimage.Exec("app", string(b)), testimage.Exec(name, string(b)))
	}
	pairs := 0
	for i, program := range targets {
		for _, machine := range targets {
			p, err := platform.Parse(machine.platform())
			if err != nil { // a platform that images cannot claim
				continue
			}
			pairs++
			in := verify.Input{Platform: p, Layers: layers[i : i+1]}
			in.Config.Config = entry("/app")
			if machine.os == "windows" && program.os != "windows" {
				in.Config.Config = entry("/app") // not below Files: found all the same
			}
			list, err := verify.Judge(in)
			require.NoError(t, err)
			// Go's programs for OpenBSD, Solaris, illumos and Android are dynamic: their loader is not in these images.
			list = slices.DeleteFunc(list, func(f verify.Finding) bool { return f.Rule.ID == verify.RuleInterpreter.ID })
			fits, compatible := runsOn(program, machine)
			what := fmt.Sprintf("%s %s in %s", program.platform(), program.env, machine.platform())
			switch {
			case fits:
				assert.Empty(t, list, what)
			case compatible:
				assert.Equal(t, 0, verify.Count(list, verify.Error), "%s: %v", what, list)
				assert.NotEmpty(t, list, what)
			default:
				assert.Positive(t, verify.Count(list, verify.Error), what)
			}
		}
	}
	t.Logf("%d targets, %d pairings", len(targets), pairs)
}
