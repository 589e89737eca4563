package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// mergeFlags are what the command line of merge says.
type mergeFlags struct {
	transferFlags
	tags          []string
	annotations   []string
	file          string
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
		Use:   "merge [flags] -t DEST SOURCE...",
		Short: "Make one index of images and indexes, and push it",
		Long: "merge makes one index of SOURCEs and pushes it under every DEST, children first. A SOURCE is an image or an index in\n" +
			"any registry, layout, archive or the store, or a digest in DEST's repository. An index is taken apart; one that is\n" +
			"alone and that nothing is changed of keeps its bytes. What is elsewhere is copied, or mounted within a registry.\n\n" +
			"With --append, the sources are added to what DEST holds now. Any number of writers may do that to one tag at the same\n" +
			"time, and none is lost: each leaves a marker, a small tag beginning with _mctl., that the others see. The registry\n" +
			"must list tags as soon as they are pushed. Markers are of no use after an hour, and later appends remove them.\n\n" +
			"The digest of the index is printed.",
		Example: "  manifestctl merge -t registry.example/app:1.0 registry.example/app:1.0-amd64 oci:arm64:1.0\n" +
			"  manifestctl merge -t registry.example/app:1.0 --append registry.example/app:1.0-riscv64\n" +
			"  manifestctl merge -t registry.example/app:1.0 --platform linux/amd64,linux/arm64 --template registry.example/app-ARCH:1.0\n" +
			"  manifestctl merge -t registry.example/app:1.0 --annotation 'manifest-descriptor[linux/arm64]:note=slow' SOURCE...",
		RunE: func(cmd *cobra.Command, args []string) error { return m.run(e, cmd, args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&m.tags, "tag", "t", nil, "`DEST` where the index goes; repeatable")
	m.transferFlags.add(f)
	f.BoolVar(&m.options.Append, "append", false, "add to what DEST holds now, safely beside other writers")
	f.BoolVar(&m.options.Replace, "replace-platform", false, "an image takes the place of another for its platform")
	f.BoolVar(&m.options.Nested, "nested", false, "an index among the sources stays one")
	f.StringArrayVar(&m.annotations, "annotation", nil, "`[LEVEL[[PLATFORM]]:]KEY=VALUE` LEVEL is index (default), manifest, index-descriptor or manifest-descriptor; repeatable")
	f.StringVarP(&m.file, "file", "f", "", "`FILE` names and sources as manifest-tool's YAML has them; - is stdin")
	f.StringVar(&m.template, "template", "", "`NAME` a source for each --platform: OS, ARCH and VARIANT in it are replaced")
	f.BoolVar(&m.ignoreMissing, "ignore-missing", false, "leave out sources that do not exist")
	f.BoolVar(&m.preferIndex, "prefer-index", true, "make an index of a lone image; =false copies it as it is")
	f.StringVar(&m.format, "format", "", "`oci|docker` of the index (default what the sources are)")
	f.StringVar(&m.metadata, "metadata-file", "", "`FILE` write digest and descriptor as JSON")
	return cmd
}

func (m *mergeFlags) run(e *env, cmd *cobra.Command, args []string) error {
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
	return e.withTransfer(cmd.Context(), reads, writes, func(env transfer.Env) error {
		done, err := transfer.Merge(cmd.Context(), env, names, sources, m.options)
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
	case "", "oci":
	case "docker", "v2s2":
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
	if m.file != "" {
		raw, err := m.readFile(e)
		if err != nil {
			return nil, nil, err
		}
		to, from, err := transfer.ParseMergeFile(raw)
		if err != nil {
			return nil, nil, usagef("--file %s: %w", m.file, err)
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
		return nil, nil, usagef("there is no destination: give -t DEST").withHint("usage: %s", useLine(newMerge(e)))
	}
	for _, a := range args {
		r, err := transfer.ParseSource(a, names[0])
		if err != nil {
			return nil, nil, err
		}
		sources = append(sources, transfer.MergeSource{Ref: r})
	}
	if len(sources) == 0 {
		return nil, nil, usagef("there is no source: name images or indexes to merge").withHint("usage: %s", useLine(newMerge(e)))
	}
	for i := range sources {
		sources[i].Optional = m.ignoreMissing
	}
	return names, sources, nil
}

func (m *mergeFlags) readFile(e *env) ([]byte, error) {
	if m.file == "-" {
		raw, err := io.ReadAll(io.LimitReader(e.stdin, 2<<20))
		if err != nil {
			return nil, fmt.Errorf("reading the standard input: %w", err)
		}
		return raw, nil
	}
	raw, err := os.ReadFile(m.file)
	if err != nil {
		return nil, usagef("--file: %w", err)
	}
	return raw, nil
}
