package main

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/pkg/build"
)

// TestScript runs the command lines of testdata/script: one script a command, and one for each example of the README.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MANIFESTCTL_ROOT", filepath.Join(env.WorkDir, ".store"))
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, ".docker"))
			path, err := exec.LookPath("manifestctl")
			env.Setenv("MANIFESTCTL_ONLY", filepath.Dir(path)) // a PATH with no other program
			return err
		},
		Condition: condition,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"registry":     startRegistry,
			"fakeregistry": fakeRegistry,
			"fileserver":   serveFiles,
			"exitcode":     exitCodeIs,
			"busybox":      copyBusybox,
			"damage":       damage,
			"elf":          makeELF,
			"fileenv":      fileEnv,
			"sigtag":       sigTag,
			"expand":       expandFiles,

			"dockerdraft": dockerDraft,
		},
	})
}

// condition knows [steps]: this host can run steps natively, and [busybox]: there is a static one.
func condition(name string) (bool, error) {
	switch name {
	case "steps":
		return canRunSteps(), nil
	case "race":
		return raceDetector, nil
	case "busybox":
		_, err := staticBusybox()
		return err == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

var canRunSteps = sync.OnceValue(func() bool {
	for _, r := range build.Doctor(context.Background(), "", build.Options{Path: os.Getenv("PATH")}) {
		if r.Name == "user namespace" {
			return r.OK
		}
	}
	return false
})

// staticBusybox is the path of a busybox that needs no library.
var staticBusybox = sync.OnceValues(func() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is not static", path)
		}
	}
	return path, nil
})

// copyBusybox is `busybox FILE`: it copies the host's to FILE.
func copyBusybox(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: busybox FILE")
	}
	path, err := staticBusybox()
	ts.Check(err)
	data, err := os.ReadFile(path)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o755))
}

// damage is `damage DIR`: it flips a bit in the largest file of DIR.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var largest []byte
	var path string
	for _, e := range entries {
		p := filepath.Join(ts.MkAbs(args[0]), e.Name())
		data, err := os.ReadFile(p)
		ts.Check(err)
		if len(data) > len(largest) {
			largest, path = data, p
		}
	}
	largest[len(largest)/2] ^= 1
	ts.Check(os.Chmod(path, 0o600))
	ts.Check(os.WriteFile(path, largest, 0o600))
}

// fileEnv is `fileenv VAR FILE`: it sets VAR to what FILE holds, without the space around it.
func fileEnv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fileenv VAR FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// expandFiles is `expand FILE...`: it replaces $NAME in files by variables of the script.
func expandFiles(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: expand FILE...")
	}
	for _, name := range args {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o600))
	}
}

// sigTag is `sigtag VAR FILE`: it sets VAR to the tag under which cosign looks for signatures of the digest in FILE.
func sigTag(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sigtag VAR FILE")
	}
	d := strings.TrimSpace(ts.ReadFile(args[1]))
	ts.Setenv(args[0], strings.ReplaceAll(d, ":", "-")+".sig")
}

// dockerDraft is `dockerdraft LIST IMAGE DIGEST OS ARCH [VARIANT]`: it writes what `docker manifest create` keeps of an
// image, without the manifest.
func dockerDraft(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 5 {
		ts.Fatalf("usage: dockerdraft LIST IMAGE DIGEST OS ARCH [VARIANT]")
	}
	safe := strings.NewReplacer(":", "-", "/", "_").Replace
	dir := filepath.Join(ts.Getenv("DOCKER_CONFIG"), "manifests", safe(args[0]))
	ts.Check(os.MkdirAll(dir, 0o755))
	platform := map[string]string{"os": args[3], "architecture": args[4]}
	if len(args) > 5 {
		platform["variant"] = args[5]
	}
	data, err := json.Marshal(map[string]any{
		"Ref": args[1],
		"Descriptor": map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": args[2], "size": 1, "platform": platform,
		},
	})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, safe(args[1])), data, 0o600))
}

// exitCodeIs is `exitcode CODE COMMAND ARG...`: COMMAND must end with CODE. Its output is compared as after exec.
func exitCodeIs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = strconv.Itoa(exit.ExitCode())
	case err != nil:
		ts.Fatalf("%s: %v", args[1], err)
	}
	if got != args[0] {
		ts.Fatalf("%s ended with %s, not %s", strings.Join(args[1:], " "), got, args[0])
	}
}

var listening = regexp.MustCompile(`://(127\.0\.0\.1:[0-9]+)`)

// startRegistry is `registry VAR [ARG...]`: it runs manifestctl serve with these arguments on a free port until the
// script ends, and sets VAR to HOST:PORT.
func startRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: registry VAR [ARG...]")
	}
	cmd := exec.Command("manifestctl", append([]string{"serve", "--listen", "127.0.0.1:0"}, args[1:]...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{
		"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "TMPDIR=" + ts.Getenv("TMPDIR"),
		"MANIFESTCTL_ROOT=" + ts.Getenv("MANIFESTCTL_ROOT"),
	}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	path, err := exec.LookPath("manifestctl")
	ts.Check(err)
	cmd.Path, cmd.Err = path, nil
	ts.Check(cmd.Start())
	found, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case found <- m[1]:
				default:
				}
			}
		}
	}()
	ts.Defer(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-ended
		_ = cmd.Wait() // says that it was killed
	})
	select {
	case addr := <-found:
		ts.Setenv(args[0], addr)
	case <-ended:
		ts.Fatalf("serve ended without an address")
	case <-time.After(2 * time.Minute):
		ts.Fatalf("serve does not say where it listens")
	}
}

// makeELF writes a small program for a machine: elf ARCH FILE.
func makeELF(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: elf ARCH FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(testexe.Exec(args[0])), 0o755))
}
