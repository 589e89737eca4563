package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// verifySize is the size of the tree that verify reads, in MiB.
var verifySize = flag.Int("verify-size", 1024, "size of the image that verify reads, in `MiB`")

// verifies measures what the check of contents costs: by itself beside reading the image once, and in a build.
func (b *bench) verifies() error {
	tree := filepath.Join(b.dir, "verify-tree")
	if err := b.verifyTree(tree); err != nil {
		return err
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, "\n## Verify\n\nAn image of %d MiB in one layer: small files, and programs of Go for two thirds of it. Medians; page cache warm.\n\n", *verifySize)
	fmt.Fprintln(&w, "| work | manifestctl | floor | ratio | memory | target |")
	fmt.Fprintln(&w, "|---|---|---|---|---|---|")
	for _, form := range []string{"plain", "gzip"} {
		layout := filepath.Join(b.dir, "verify-"+form)
		blob, err := verifyLayout(layout, tree, form == "gzip")
		if err != nil {
			return err
		}
		floor := func() error { return readOnce(blob, form == "gzip") }
		what := "sha256 of it"
		if form == "gzip" {
			what = "sha256 of it, unpacked, sha256 of that"
		}
		t, memory, err := b.beside(floor, "verify", "--no-cache", "--allow", "/data/**=any", "oci:"+layout)
		if err != nil {
			return err
		}
		fmt.Fprintf(&w, "| verify, layer as %s | %s | %s (%s) | %.2f | %d MiB | at most 1.15, 64 MiB |\n", form, ms(t[0]), ms(t[1]), what, float64(t[0])/float64(t[1]), memory>>20)
		if err := command(b.root("verify", "oci:"+layout)); err != nil {
			return err
		}
		out, err := b.root("verify", "--format", "json", "oci:"+layout).Output()
		if err != nil {
			return err
		}
		if !bytes.Contains(out, []byte(`"bytesRead": 0`)) {
			return fmt.Errorf("the second run read layers: %s", out)
		}
		t, memory, err = b.beside(func() error { return nil }, "verify", "oci:"+layout)
		if err != nil {
			return err
		}
		fmt.Fprintf(&w, "| verify again, layer as %s: 0 bytes read | %s | | | %d MiB | reads nothing |\n", form, ms(t[0]), memory>>20)
	}
	if err := b.verifyBuild(&w, tree); err != nil {
		return err
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

// root is a command with the bench's store.
func (b *bench) root(args ...string) *exec.Cmd {
	return exec.Command(b.bin, append([]string{"--root", filepath.Join(b.dir, "store")}, args...)...)
}

// beside times a command and a floor in turn. memory is the most that the command had resident.
func (b *bench) beside(floor func() error, args ...string) (medians []time.Duration, memory int64, err error) {
	all := make([][]time.Duration, 2)
	for i := range min(b.runs, 5) + 1 {
		c := b.root(args...)
		start := time.Now()
		used, err := resident(c)
		if err != nil {
			return nil, 0, err
		}
		ours := time.Since(start)
		start = time.Now()
		if err := floor(); err != nil {
			return nil, 0, err
		}
		if i == 0 {
			continue
		}
		all[0], all[1] = append(all[0], ours), append(all[1], time.Since(start))
		memory = max(memory, used)
	}
	for _, a := range all {
		slices.Sort(a)
		medians = append(medians, a[len(a)/2])
	}
	return medians, memory, nil
}

// resident runs c and returns the most that it had resident, in bytes. The kernel's own count begins with that of the process that
// forks, so it is looked at while c runs.
func resident(c *exec.Cmd) (most int64, err error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	for {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid)); err == nil {
			if _, rest, ok := strings.Cut(string(text), "VmHWM:"); ok {
				var kib int64
				if _, err := fmt.Sscan(rest, &kib); err == nil {
					most = max(most, kib<<10)
				}
			}
		}
		select {
		case err := <-done:
			if err != nil {
				err = fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, out.Bytes())
			}
			return most, err
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// verifyBuild is W4 with the check and without: COPY of the tree for two platforms to an archive.
func (b *bench) verifyBuild(w io.Writer, tree string) error {
	dir := filepath.Join(b.dir, "verify-build")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tree, filepath.Join(dir, "tree")); err != nil {
		return err
	}
	spec := "version: 1\nplatforms: [linux/amd64, linux/arm64]\nfrom: scratch\nsteps:\n  - files:\n      - {path: /data, source: tree}\n" +
		"config: {entrypoint: [/data/program-0]}\nverify: {allow: {/data/**: any}}\n"
	if err := os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(spec), 0o644); err != nil {
		return err
	}
	build := func(mode string) func() []*exec.Cmd {
		return func() []*exec.Cmd {
			return []*exec.Cmd{b.ours("--no-cache", "--verify="+mode, "-o", "type=oci,dest="+filepath.Join(b.dir, "w4.tar"), dir)}
		}
	}
	few := *b
	few.runs = min(b.runs, 5)
	t, err := few.timed(build("error"), build("off"))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "| W4: the tree copied for 2 platforms to an archive, gzip, with the check | %s | %s (without) | %.3f | | at most 1.03 |\n",
		ms(t[0]), ms(t[1]), float64(t[0])/float64(t[1]))
	return nil
}

// verifyTree makes programs, each with bytes of its own, and small files.
func (b *bench) verifyTree(dir string) error {
	program, err := os.ReadFile(b.bin)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	random := rand.New(rand.NewSource(1)) //nolint:gosec // the same bytes in every run are wanted
	size := 0
	for i := 0; size < *verifySize<<20/3*2; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("program-%d", i)), fmt.Appendf(slices.Clone(program), "%d", i), 0o755); err != nil {
			return err
		}
		size += len(program)
	}
	text := make([]byte, 16<<10)
	for i := 0; size < *verifySize<<20; i++ {
		at := filepath.Join(dir, fmt.Sprintf("d%03d", i/100))
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		for j := range text {
			text[j] = "abcdefgh \n"[random.Intn(10)]
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("f%d", i)), text, 0o644); err != nil {
			return err
		}
		size += len(text)
	}
	return nil
}

// verifyLayout makes an OCI layout of an image with the tree as its only layer, and returns the layer's file.
func verifyLayout(dir, tree string, compress bool) (string, error) {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return "", err
	}
	tmp := filepath.Join(dir, "layer")
	f, err := os.Create(tmp)
	if err != nil {
		return "", err
	}
	blob, content := sha256.New(), sha256.New()
	var out io.Writer = io.MultiWriter(f, blob)
	mediaType := "application/vnd.oci.image.layer.v1.tar"
	var z *gzip.Writer
	if compress {
		mediaType += "+gzip"
		if z, err = gzip.NewWriterLevel(out, 1); err != nil {
			return "", err
		}
		out = z
	}
	w := tar.NewWriter(io.MultiWriter(out, content))
	err = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "data/" + name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err == nil && z != nil {
		err = z.Close()
	}
	if err != nil {
		return "", err
	}
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	name := filepath.Join(blobs, fmt.Sprintf("%x", blob.Sum(nil)))
	if err := os.Rename(tmp, name); err != nil {
		return "", err
	}
	put := func(text string) (string, error) {
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		return fmt.Sprintf(`"digest":"sha256:%s","size":%d`, sum, len(text)), os.WriteFile(filepath.Join(blobs, sum), []byte(text), 0o644)
	}
	config, err := put(fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/data/program-0"]},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, content.Sum(nil)))
	if err != nil {
		return "", err
	}
	manifest, err := put(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},`+
		`"layers":[{"mediaType":%q,"digest":"sha256:%s","size":%d}]}`, config, mediaType, filepath.Base(name), info.Size()))
	if err != nil {
		return "", err
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s}]}`, manifest)
	if !json.Valid([]byte(index)) {
		return "", fmt.Errorf("no JSON: %s", strings.TrimSpace(index))
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return "", err
	}
	return name, os.WriteFile(filepath.Join(dir, "index.json"), []byte(index), 0o644)
}

// readOnce is what anybody who reads an image has to do: hash the blob, and, where it is compressed, unpack it and hash that.
func readOnce(path string, compressed bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	if !compressed {
		_, err := io.CopyBuffer(h, struct{ io.Reader }{f}, buf)
		return err
	}
	z, err := gzip.NewReader(io.TeeReader(f, h))
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(sha256.New(), struct{ io.Reader }{z}, buf)
	return err
}
