package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// mergeFlags are what the command line of merge says.
type mergeFlags struct {
	gate gateFlags
	transferFlags
	stage         stageFlags
	tags          []string
	annotations   []string
	files         []string
	subject       string
	byDigest      bool
	template      string
	format        string
	metadata      string
	ignoreMissing bool
	preferIndex   bool
	options       transfer.MergeOptions
}

func newMerge(e *env) *cobra.Command {
	var m mergeFlags
	cmd := &cobra.Command{
		Use:   "merge [flags] -t DEST [SOURCE...]",
		Short: "Make one index of images and indexes, and push it",
		Long: "merge makes one index of SOURCEs and pushes it under every DEST, children first. A SOURCE is an image or an index in\n" +
			"any registry, layout, archive or the store, or a digest in DEST's repository. An index is taken apart; one that is\n" +
			"alone and that nothing is changed of keeps its bytes. What is elsewhere is copied, or mounted within a registry.\n\n" +
			"With --append, the sources are added to what DEST holds now. Any number of writers may do that to one tag at the same\n" +
			"time, and none is lost: each leaves a marker, a small tag beginning with _mctl., that the others see. The registry\n" +
			"must list tags as soon as they are pushed. Markers are of no use after an hour, and later appends remove them.\n\n" +
			"With --stage ID, the sources are the images that machines left with `build --stage ID` in DEST's repository. --expect names\n" +
			"their platforms; DEST becomes the index once all that are required are there, else it stays as it is, and the exit code\n" +
			"is 6. Running it again is harmless.\n\n" +
			"The digest of the index is printed. In GitHub's CI it goes to $GITHUB_OUTPUT too.",
		Example: "  manifestctl merge -t registry.example/app:1.0 registry.example/app:1.0-amd64 oci:arm64:1.0\n" +
			"  manifestctl merge -t registry.example/app:1.0 --append registry.example/app:1.0-riscv64\n" +
			"  manifestctl merge -t registry.example/app:1.0 --platform linux/amd64,linux/arm64 --template registry.example/app-ARCH:1.0\n" +
			"  manifestctl merge -t registry.example/app:1.0 --stage 4711 --expect 'linux/amd64,linux/arm64,linux/riscv64?' --wait 30m\n" +
			"  manifestctl merge -t registry.example/app:1.0 --annotation 'manifest-descriptor[linux/arm64]:note=slow' SOURCE...",
		RunE: func(cmd *cobra.Command, args []string) error { return m.run(e, cmd, args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&m.tags, "tag", "t", nil, "`DEST` where the index goes; repeatable")
	m.transferFlags.add(f)
	m.gate.add(f)
	m.stage.add(f)
	f.BoolVar(&m.options.Append, "append", false, "add to what DEST holds now, safely beside other writers")
	f.BoolVar(&m.options.Replace, "replace-platform", false, "an image takes the place of another for its platform")
	f.BoolVar(&m.options.Nested, "nested", false, "an index among the sources stays one")
	f.StringArrayVar(&m.annotations, "annotation", nil, "`[LEVEL[[PLATFORM]]:]KEY=VALUE` LEVEL is index (default), manifest, index-descriptor or manifest-descriptor; repeatable")
	f.StringArrayVarP(&m.files, "file", "f", nil, "`FILE` names and sources as manifest-tool's YAML has them, or a descriptor as JSON; - is stdin; repeatable")
	f.StringVar(&m.subject, "subject", "", "`REF` the image or index that the new one is about")
	f.StringVar(&m.options.Type, "artifact-type", "", "`TYPE` what the index is if not one of images")
	f.BoolVar(&m.byDigest, "by-digest", false, "push without a tag; the digest names it")
	f.StringVar(&m.template, "template", "", "`NAME` a source for each --platform: OS, ARCH and VARIANT in it are replaced")
	f.BoolVar(&m.ignoreMissing, "ignore-missing", false, "leave out sources that do not exist")
	f.BoolVar(&m.preferIndex, "prefer-index", true, "make an index of a lone image; =false copies it as it is")
	f.StringVar(&m.format, "format", "", "`oci|docker` of the index (default what the sources are)")
	f.StringVarP(&m.format, "media-type", "m", "", "regctl's spelling of --format")
	hide(f, "media-type")
	f.BoolVarP(&e.globals.silent, "quiet", "q", false, "no progress and no summary")
	f.StringVar(&m.metadata, "metadata-file", "", "`FILE` write digest and descriptor as JSON")
	return cmd
}

func (m *mergeFlags) run(e *env, cmd *cobra.Command, args []string) error {
	if err := m.stage.check(cmd.Flags()); err != nil {
		return err
	}
	names, sources, err := m.parse(e, args)
	if err != nil {
		return err
	}
	reads := append([]ref.Ref{}, names...)
	for _, s := range sources {
		reads = append(reads, s.Ref)
	}
	writes := names
	if m.options.DryRun {
		writes = nil
	}
	var subject *ref.Ref
	if m.subject != "" {
		r, err := ref.Parse(m.subject)
		if err != nil {
			return err
		}
		subject = &r
		reads = append(reads, r)
	}
	return e.withTransfer(cmd.Context(), reads, writes, func(env transfer.Env) (err error) {
		gate, err := m.gate.open(cmd.Context(), e, env.Store)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, gate.close()) }()
		if gate != nil {
			m.options.Check = gate.entry
		}
		if subject != nil {
			img, err := env.Opener().Open(cmd.Context(), *subject)
			if err != nil {
				return err
			}
			root := img.Root()
			m.options.Subject = &root
			if err := img.Close(); err != nil {
				return err
			}
		}
		var done transfer.Merged
		if m.stage.id != "" {
			done, err = m.stage.merge(cmd.Context(), e, env, names, sources, m.options)
		} else {
			done, err = transfer.Merge(cmd.Context(), env, names, sources, m.options)
		}
		if err != nil {
			return err
		}
		e.reported(done.Report, m.options.DryRun)
		if m.options.DryRun {
			_, err := e.stdout.Write(append(done.Raw, '\n'))
			return err
		}
		if err := writeMetadata(m.metadata, done.Desc, names); err != nil {
			return err
		}
		if err := e.stepOutput(metadataOf(done.Desc, names), "", done.Raw); err != nil {
			return err
		}
		return e.println(done.Desc.Digest)
	})
}

// parse makes destinations, sources and options of the command line.
func (m *mergeFlags) parse(e *env, args []string) (names []ref.Ref, sources []transfer.MergeSource, err error) {
	if m.options.Options, err = m.transferFlags.parse(); err != nil {
		return nil, nil, err
	}
	m.options.Single = !m.preferIndex
	switch m.format {
	case "", "oci", ocispec.MediaTypeImageIndex:
	case "docker", "v2s2", index.MediaTypeDockerList:
		m.options.Docker = true
	default:
		return nil, nil, usagef("--format %q: want oci or docker", m.format)
	}
	for _, a := range m.annotations {
		list, err := transfer.ParseAnnotation(a)
		if err != nil {
			return nil, nil, usagef("--annotation: %w", err)
		}
		m.options.Annotations = append(m.options.Annotations, list...)
	}
	for _, t := range m.tags {
		r, err := ref.Parse(t)
		if err != nil {
			return nil, nil, err
		}
		names = append(names, r)
	}
	for _, file := range m.files {
		raw, err := readInput(e, file)
		if err != nil {
			return nil, nil, err
		}
		if len(names) > 0 {
			if s, ok, err := transfer.ParseDescriptor(raw, names[0]); ok {
				if err != nil {
					return nil, nil, usagef("--file %s: %w", file, err)
				}
				sources = append(sources, s)
				continue
			}
		}
		to, from, err := transfer.ParseMergeFile(raw)
		if err != nil {
			return nil, nil, usagef("--file %s: %w", file, err)
		}
		if len(names) == 0 { // -t says better where
			names = to
		}
		sources = append(sources, from...)
	}
	if m.template != "" {
		from, err := transfer.Template(m.template, m.options.Platforms)
		if err != nil {
			return nil, nil, usagef("--template: %w", err)
		}
		sources = append(sources, from...)
	}
	if len(names) == 0 {
		return nil, nil, usagef("there is no destination: give -t DEST").withHint("usage: manifestctl %s", useLine(newMerge(e)))
	}
	for _, a := range args {
		r, err := transfer.ParseSource(a, names[0])
		if err != nil {
			return nil, nil, err
		}
		sources = append(sources, transfer.MergeSource{Ref: r})
	}
	if m.byDigest {
		for i, n := range names {
			if n.Kind != ref.Registry {
				return nil, nil, usagef("--by-digest: %s is not in a registry", n)
			}
			names[i] = n.WithTag("")
		}
	}
	if len(sources) == 0 && m.stage.id == "" {
		return nil, nil, usagef("there is no source: name images or indexes to merge").withHint("usage: manifestctl %s", useLine(newMerge(e)))
	}
	for i := range sources {
		sources[i].Optional = m.ignoreMissing
	}
	return names, sources, nil
}

// readInput reads a file that is given on the command line.
func readInput(e *env, name string) ([]byte, error) {
	if name == "-" {
		raw, err := io.ReadAll(io.LimitReader(e.stdin, 2<<20))
		if err != nil {
			return nil, fmt.Errorf("reading the standard input: %w", err)
		}
		return raw, nil
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, usagef("--file: %w", err)
	}
	return raw, nil
}
