package inspect

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// maxText is how many bytes of an image's own text a table shows.
const maxText = 200

// renderTable prints the head that buildx prints, then a row for each platform.
func renderTable(ctx context.Context, r *reader) error {
	if err := r.images(ctx); err != nil {
		return err
	}
	res := r.res
	var b bytes.Buffer
	line := func(key, value string) { fmt.Fprintf(&b, "%-10s %s\n", key+":", visible(value)) }
	line("Name", res.Name)
	line("MediaType", res.Desc.MediaType)
	line("Digest", res.Desc.Digest.String())
	annotations := map[string]string{}
	if res.Index != nil {
		annotations = res.Index.Annotations
	} else if res.Manifest != nil {
		annotations = res.Manifest.Annotations
		if res.Manifest.ArtifactType != "" {
			line("Artifact", res.Manifest.ArtifactType)
		} else if len(res.Images) == 0 {
			line("Artifact", res.Manifest.Config.MediaType)
		}
	}
	if len(annotations) > 0 {
		b.WriteString("\n")
		t := newTable(&b, "ANNOTATION", "VALUE")
		for _, k := range slices.Sorted(maps.Keys(annotations)) {
			t.row(k, annotations[k])
		}
		t.flush()
	}
	if len(res.Images) > 0 {
		b.WriteString("\n")
		t := newTable(&b, "PLATFORM", "DIGEST", "SIZE", "LAYERS", "CREATED")
		for _, img := range res.Images {
			size, layers, created := "-", "-", "-"
			if img.Config != nil || img.Layers > 0 {
				size, layers = humanSize(img.Size), strconv.Itoa(img.Layers)
			}
			if !img.Created.IsZero() {
				created = img.Created.UTC().Format(time.RFC3339)
			}
			name := "?"
			if !img.Platform.IsZero() {
				name = img.Platform.String()
			}
			t.row(name, img.Desc.Digest.String(), size, layers, created)
		}
		t.flush()
	}
	if len(res.Attestations) > 0 {
		b.WriteString("\n")
		t := newTable(&b, "ATTESTATION OF", "DIGEST")
		for _, a := range res.Attestations {
			t.row(res.subject(a.Attests), a.Desc.Digest.String())
		}
		t.flush()
	}
	if res.Index != nil && len(res.Others) > 0 {
		b.WriteString("\n")
		t := newTable(&b, "ARTIFACT", "DIGEST")
		for _, o := range res.Others {
			name := o.ArtifactType
			if name == "" {
				name = o.MediaType
			}
			t.row(name, o.Digest.String())
		}
		t.flush()
	}
	res.out = b.Bytes()
	return nil
}

// subject names what an attestation describes: a platform of the index where it is one.
func (r *Result) subject(d digest.Digest) string {
	for _, img := range r.Images {
		if img.Desc.Digest == d && !img.Platform.IsZero() {
			return img.Platform.String()
		}
	}
	if d == "" {
		return "?"
	}
	return d.String()
}

// table writes aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(b *bytes.Buffer, heads ...string) table {
	t := table{tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)}
	fmt.Fprintln(t.w, strings.Join(heads, "\t"))
	return t
}

func (t table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = visible(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) flush() { t.w.Flush() } // into a buffer: it cannot fail

// visible makes text from an image harmless for a terminal and a table: what does not print (control characters,
// escapes, direction marks) is written as Go writes it, and long text is cut (ROBUSTNESS.md b17).
func visible(s string) string {
	cut := ""
	if len(s) > maxText {
		end := maxText
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s, cut = s[:end], "..."
	}
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) < 0 {
		return s + cut
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`) + cut
}

// humanSize prints bytes in powers of 1000, three figures at most, as docker does.
func humanSize(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, units := float64(n), "kMGTPE"
	for i := range len(units) {
		f /= 1000
		if f < 999.5 || i == len(units)-1 {
			digits := 0
			switch {
			case f < 9.995:
				digits = 2
			case f < 99.95:
				digits = 1
			}
			return strconv.FormatFloat(f, 'f', digits, 64) + " " + units[i:i+1] + "B"
		}
	}
	return ""
}
