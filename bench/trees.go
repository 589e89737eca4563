package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// treePeers says whether W4 runs BuildKit and buildah too: they take minutes.
var treePeers = flag.Bool("tree-peers", true, "W4 with BuildKit and buildah, once each")

// W4's tree: small files and large ones, 1 GiB in all.
const (
	treeFiles  = 50_000
	treeBytes  = 1 << 30
	treeShares = 3 // a third of the bytes is in the small files
)

// treeForm is one compression of W4.
type treeForm struct {
	name   string
	output string   // added to -o
	floor  []string // what tar is piped into
	limit  float64  // of the floor's time
	peers  bool
}

var treeForms = []treeForm{
	{name: "gzip", floor: []string{"pigz", "-6", "-p2"}, limit: 0.65, peers: true},
	{name: "zstd", output: ",compression=zstd", floor: []string{"zstd", "-q", "-T2", "-3"}, limit: 1.2, peers: true},
}

var eightPlatforms = []string{
	"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/s390x", "linux/riscv64", "linux/loong64",
}

// trees is W4: COPY of a tree of 1 GiB for two platforms to an OCI archive, beside tar and a compressor that run once, and
// the same for eight platforms. Every build has a store of its own: nothing is compressed before it starts.
func (b *bench) trees() error {
	dir := filepath.Join(b.dir, "w4")
	if err := tree(filepath.Join(dir, "context")); err != nil {
		return err
	}
	file := filepath.Join(dir, "Dockerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\nCOPY . /data/\n"), 0o644); err != nil {
		return err
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, "\n## W4: trees\n\n`COPY` of %d small files and large ones, 1 GiB, on nothing, to an OCI archive; every build has an empty store. The floor is `tar` piped into a compressor, once.\n", treeFiles)
	fmt.Fprintf(&w, "Ratios are medians of those of each run. %s, %s.\n\n", line("pigz", "--version"), line("zstd", "--version"))
	fmt.Fprintln(&w, "| work | manifestctl | floor | ratio | target | MB | floor's MB | ratio | target | peak MiB | BuildKit | buildah |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, form := range treeForms {
		if !strings.Contains(form.name, b.way) {
			continue
		}
		if err := b.tree(&w, dir, form); err != nil {
			return fmt.Errorf("%s: %w", form.name, err)
		}
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

// tree measures one form: two platforms, the floor, eight platforms, in turn.
func (b *bench) tree(w io.Writer, dir string, form treeForm) error {
	var two, eight, floors []time.Duration
	var ratios, more []float64
	var peak, size, floorSize int64
	for i := range min(b.runs, 5) + 1 {
		t2, used, n, err := b.treeBuild(dir, form, eightPlatforms[:2])
		if err != nil {
			return err
		}
		floor, floorN, err := b.treeFloor(dir, form)
		if err != nil {
			return err
		}
		t8, _, _, err := b.treeBuild(dir, form, eightPlatforms)
		if err != nil {
			return err
		}
		if i == 0 { // the page cache
			continue
		}
		two, eight, floors = append(two, t2), append(eight, t8), append(floors, floor)
		ratios, more = append(ratios, float64(t2)/float64(floor)), append(more, float64(t8)/float64(t2))
		peak, size, floorSize = max(peak, used), n, floorN
	}
	peers := []string{"", ""}
	if form.peers && *treePeers {
		var err error
		if peers, err = b.treePeers(dir, form); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "| %s, 2 platforms | %s | %s (`tar \\| %s`) | %.2f | ≤ %.2f | %.1f | %.1f | %.3f | ≤ 1.05 | %d | %s | %s |\n",
		form.name, ms(median(two)), ms(median(floors)), strings.Join(form.floor, " "), median(ratios), form.limit,
		float64(size)/1e6, float64(floorSize)/1e6, float64(size)/float64(floorSize), peak>>20, peers[0], peers[1])
	fmt.Fprintf(w, "| %s, 8 platforms | %s | %s (2 platforms) | %.3f | ≤ 1.05 | | | | | | | |\n",
		form.name, ms(median(eight)), ms(median(two)), median(more))
	return nil
}

// treeBuild is one build with an empty store: how long it took, the most memory it had, and the size of what it wrote.
func (b *bench) treeBuild(dir string, form treeForm, platforms []string) (took time.Duration, memory, size int64, err error) {
	root, out := filepath.Join(dir, "store"), filepath.Join(dir, "out.tar")
	if err := errors.Join(os.RemoveAll(root), os.RemoveAll(out)); err != nil {
		return 0, 0, 0, err
	}
	c := exec.Command(b.bin, "--root", root, "build", "--progress", "quiet", "--platform", strings.Join(platforms, ","),
		"-f", filepath.Join(dir, "Dockerfile"), "-o", "type=oci,dest="+out+form.output, filepath.Join(dir, "context"))
	start := time.Now()
	if memory, err = resident(c); err != nil {
		return 0, 0, 0, err
	}
	took = time.Since(start)
	info, err := os.Stat(out)
	if err != nil {
		return 0, 0, 0, err
	}
	return took, memory, info.Size(), os.RemoveAll(root)
}

// treeFloor is tar and a compressor.
func (b *bench) treeFloor(dir string, form treeForm) (time.Duration, int64, error) {
	out := filepath.Join(dir, "floor")
	if err := os.RemoveAll(out); err != nil {
		return 0, 0, err
	}
	script := fmt.Sprintf("set -o pipefail; tar -C %q -c . | %s >%q", filepath.Join(dir, "context"), strings.Join(form.floor, " "), out)
	start := time.Now()
	if err := command(exec.Command("bash", "-c", script)); err != nil {
		return 0, 0, err
	}
	took := time.Since(start)
	info, err := os.Stat(out)
	if err != nil {
		return 0, 0, err
	}
	return took, info.Size(), nil
}

// treePeers builds the same with BuildKit and buildah, once, with nothing in their caches.
func (b *bench) treePeers(dir string, form treeForm) ([]string, error) {
	ctx := context.Background()
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	programs, err := oracle.Binaries(ctx, root)
	if err != nil {
		return nil, err
	}
	state := filepath.Join(dir, "buildkit")
	daemon, err := oracle.Start(ctx, programs, state)
	if err != nil {
		return nil, err
	}
	platforms := strings.Join(eightPlatforms[:2], ",")
	start := time.Now()
	err = command(daemon.Command(ctx, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--opt", "platform="+platforms,
		"--local", "context="+filepath.Join(dir, "context"), "--local", "dockerfile="+dir,
		"--output", "type=oci,dest="+filepath.Join(dir, "peer.tar")+form.output))
	took := ms(time.Since(start))
	if err := errors.Join(err, daemon.Close(), os.RemoveAll(state), os.RemoveAll(filepath.Join(dir, "peer.tar"))); err != nil {
		return nil, err
	}
	out := []string{took}
	start = time.Now()
	list := "w4-" + form.name
	err = command(b.buildah("bud", "--jobs", "2", "--platform", platforms, "--isolation", "chroot", "--manifest", list,
		"-f", filepath.Join(dir, "Dockerfile"), filepath.Join(dir, "context")))
	if err == nil {
		args := []string{"manifest", "push", "--all", list, "oci-archive:" + filepath.Join(dir, "peer.tar")}
		if form.name == "zstd" { // this version says it of a copy only
			args = slices.Insert(args, 3, "--compression-format", "zstd")
		}
		err = command(b.buildah(args...))
	}
	if err != nil && form.name == "zstd" && strings.Contains(err.Error(), "unknown flag") {
		return append(out, "cannot"), nil
	}
	out = append(out, ms(time.Since(start)))
	return out, errors.Join(err, os.RemoveAll(filepath.Join(dir, "peer.tar")))
}

// tree makes W4's tree: texts are cut from the sources of Go, and programs are this one's, each with bytes of its own. Equal
// bytes are farther from each other than compressors look.
func tree(dir string) error {
	root := line("go", "env", "GOROOT")
	text, err := sources(filepath.Join(root, "src"))
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same bytes in every run are wanted
	size, at := 0, 0
	for i := range treeFiles {
		parent := filepath.Join(dir, fmt.Sprintf("d%02d", i/5000), fmt.Sprintf("e%03d", i/50))
		if i%50 == 0 {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return err
			}
		}
		n := random.IntN(2 * treeBytes / treeShares / treeFiles)
		if at+n > len(text) {
			at = random.IntN(1 << 20)
		}
		if err := os.WriteFile(filepath.Join(parent, fmt.Sprintf("f%d.go", i)), text[at:at+n], 0o644); err != nil {
			return err
		}
		at, size = at+n, size+n
	}
	program, err := os.ReadFile(filepath.Join(root, "bin", "go"))
	if err != nil {
		return err
	}
	for i := 0; size < treeBytes; i++ {
		n := min(len(program), treeBytes-size)
		data := slices.Clone(program[:n])
		for j := 0; j < n; j += 512 { // every copy is another program
			data[j] = byte(random.Uint32())
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("program%02d", i)), data, 0o755); err != nil {
			return err
		}
		size += n
	}
	return nil
}

// sources is the text of Go's own source files.
func sources(dir string) (text []byte, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".go" {
			return err
		}
		data, err := os.ReadFile(path)
		text = append(text, data...)
		return err
	})
	return text, err
}
