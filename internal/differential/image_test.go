package differential

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// describe turns the image in an OCI archive into text: its config and, for each layer that is not the base's, its
// digest and members. This is what is compared and recorded.
func describe(archive string, base []digest.Digest) (string, error) {
	blobs, err := readArchive(archive)
	if err != nil {
		return "", err
	}
	var index ocispec.Index
	if err := json.Unmarshal(blobs["index.json"], &index); err != nil {
		return "", err
	}
	if len(index.Manifests) != 1 {
		return "", fmt.Errorf("%d images", len(index.Manifests))
	}
	blob := func(d digest.Digest) []byte { return blobs["blobs/sha256/"+d.Encoded()] }
	var m ocispec.Manifest
	if err := json.Unmarshal(blob(index.Manifests[0].Digest), &m); err != nil {
		return "", err
	}
	raw := blob(m.Config.Digest)
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return "", err
	}
	text := string(raw)
	for i, d := range base {
		text = strings.ReplaceAll(text, d.String(), fmt.Sprintf("base layer %d", i+1))
	}
	var any map[string]any
	if err := json.Unmarshal([]byte(text), &any); err != nil {
		return "", err
	}
	pretty, err := json.MarshalIndent(any, "", " ")
	if err != nil {
		return "", err
	}
	out := &strings.Builder{}
	fmt.Fprintf(out, "config %s\n", pretty)
	for i, d := range config.RootFS.DiffIDs {
		if i < len(m.Layers) && slices.Contains(base, d) {
			continue
		}
		fmt.Fprintf(out, "layer %s\n", d)
		if err := list(out, blob(m.Layers[i].Digest)); err != nil {
			return "", fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return out.String(), nil
}

func readArchive(name string) (map[string][]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string][]byte{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if out[strings.TrimPrefix(h.Name, "./")], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
}

// list writes a line for each member of a layer.
func list(w io.Writer, blob []byte) error {
	var r io.Reader = bytes.NewReader(blob)
	if z, err := gzip.NewReader(bytes.NewReader(blob)); err == nil {
		r = z
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		sum := sha256.New()
		n, err := io.Copy(sum, tr)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, " %c %04o %d:%d %d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Name)
		if h.Linkname != "" {
			fmt.Fprintf(w, " -> %s", h.Linkname)
		}
		if h.Devmajor != 0 || h.Devminor != 0 {
			fmt.Fprintf(w, " dev %d:%d", h.Devmajor, h.Devminor)
		}
		if n > 0 {
			fmt.Fprintf(w, " %d bytes %s", n, hex.EncodeToString(sum.Sum(nil))[:12])
		}
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if strings.HasPrefix(k, "SCHILY.xattr.") {
				fmt.Fprintf(w, " %s=%q", k, h.PAXRecords[k])
			}
		}
		fmt.Fprintln(w)
	}
}

var lines = regexp.MustCompile(`(?m)(?:Dockerfile:|parse error on line )(\d+)`)

// failure says where a build failed, from what it printed.
func failure(output string) string {
	m := lines.FindStringSubmatch(output)
	if m == nil {
		return "fails\n"
	}
	return "fails at line " + m[1] + "\n"
}
