package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// stepOutput tells the CI system what a command made, where it has a place for that: the outputs that build-push-action has
// (digest, imageid, metadata) in $GITHUB_OUTPUT, and a table in $GITHUB_STEP_SUMMARY. imageID may be "". raw is the index, or
// nil. That the summary cannot be written is a note; it decides nothing.
func (e *env) stepOutput(m metadata, imageID string, raw []byte) error {
	if path := e.getenv("GITHUB_OUTPUT"); path != "" {
		data, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return fmt.Errorf("writing $GITHUB_OUTPUT: %w", err)
		}
		if imageID == "" {
			imageID = m.Digest
		}
		var b strings.Builder
		if m.Digest != "" {
			fmt.Fprintf(&b, "digest=%s\nimageid=%s\n", m.Digest, imageID)
		}
		// A value of several lines ends at a line that is not in it: one that nobody who chose its content could know.
		sum := sha256.Sum256(data)
		end := "end_" + hex.EncodeToString(sum[:16])
		fmt.Fprintf(&b, "metadata<<%s\n%s\n%s\n", end, data, end)
		if err := appendFile(path, b.String()); err != nil {
			return fmt.Errorf("writing $GITHUB_OUTPUT: %w", err)
		}
	}
	if path := e.getenv("GITHUB_STEP_SUMMARY"); path != "" {
		if err := appendFile(path, summary(m, raw)); err != nil {
			e.note("note: writing $GITHUB_STEP_SUMMARY: %s", err)
		}
	}
	return nil
}

// summary is a result as Markdown.
func summary(m metadata, raw []byte) string {
	var b strings.Builder
	name := m.Name
	if name == "" {
		name = "image"
	}
	fmt.Fprintf(&b, "### %s\n\n", markdown(strings.ReplaceAll(name, ",", ", ")))
	if m.Digest != "" {
		fmt.Fprintf(&b, "`%s`\n\n", m.Digest)
	}
	idx, err := index.Parse(raw)
	if raw == nil || err != nil {
		return b.String()
	}
	b.WriteString("| platform | digest |\n|---|---|\n")
	for _, d := range idx.Manifests {
		fmt.Fprintf(&b, "| %s | `%s` |\n", markdown(entryName(d)), d.Digest)
	}
	return b.String() + "\n"
}

// entryName says what an entry of an index is.
func entryName(d ocispec.Descriptor) string {
	if index.IsAttestation(d) {
		return "attestation"
	}
	if d.Platform != nil {
		if p, err := platform.FromOCI(*d.Platform); err == nil {
			return p.String()
		}
	}
	return d.MediaType
}

// markdown escapes what could be more than text.
func markdown(s string) string {
	return strings.NewReplacer("|", `\|`, "`", "\\`", "<", "&lt;", "\n", " ", "_", `\_`, "*", `\*`, "[", `\[`).Replace(s)
}

func appendFile(path, text string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
